"""The drawn characters: the same everywhere, whole or not at all. (What can tell them apart: test_readme.)"""

from dataclasses import replace

import numpy as np
import pytest

from jaxclf.datasets import Cartoons
from jaxclf.datasets.cartoons import render
from jaxclf.datasets.cartoons.characters import CHARACTERS
from jaxclf.datasets.cartoons.drawing import draw
from jaxclf.errors import UserError

FEW = tuple(replace(character, images=2) for character in CHARACTERS[:3])


def files(root):
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*.jpg")}


def test_eighteen_classes_of_unequal_size():
    counts = [character.images for character in CHARACTERS]
    assert len({character.name for character in CHARACTERS}) == 18
    assert sum(counts) == 6_000
    assert max(counts) > 3 * min(counts)


@pytest.mark.parametrize("character", CHARACTERS, ids=lambda character: character.name)
def test_a_picture_follows_from_its_randomness(character):
    first, again, other = (np.asarray(draw(character, np.random.default_rng(seed))) for seed in (0, 0, 1))
    assert (first.shape, first.dtype) == ((64, 64, 3), np.uint8)
    np.testing.assert_array_equal(first, again)
    assert np.abs(first.astype(float) - other).mean() > 10
    assert first.std() > 10  # it is a picture of something


def test_rendering_twice_gives_the_same_files(tmp_path, capsys):
    for name in ("a", "b"):
        render(tmp_path / name / "cartoons", FEW)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert len(files(tmp_path / "a")) == 6
    assert "drawing 3 characters" in capsys.readouterr().err


def test_a_rendering_that_fails_leaves_nothing(tmp_path):
    unfinished = replace(FEW[0], name="unfinished", head="a feature that is not drawn")
    with pytest.raises(KeyError):
        render(tmp_path / "cartoons", (*FEW, unfinished))
    assert list(tmp_path.iterdir()) == []


def test_what_another_process_has_drawn_meanwhile_is_kept(tmp_path):
    render(tmp_path / "cartoons", FEW[:1])
    before = files(tmp_path)
    render(tmp_path / "cartoons", FEW)
    assert files(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["cartoons"]


def test_a_subset_out_of_range_is_refused_before_anything_is_drawn():
    with pytest.raises(UserError, match=r"subset=2\.0: expected"):
        Cartoons(subset=2.0)
