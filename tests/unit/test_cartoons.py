"""The drawn characters: the same everywhere, whole or not at all. (What can tell them apart: test_readme.)"""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from jaxclf.datasets import Cartoons
from jaxclf.datasets.cartoons import render
from jaxclf.datasets.cartoons.characters import CHARACTERS
from jaxclf.datasets.cartoons.scene import sample_scene
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
    first, again, other = (
        np.asarray(sample_scene(character, np.random.default_rng(seed)).draw()) for seed in (0, 0, 1)
    )
    assert (first.shape, first.dtype) == ((64, 64, 3), np.uint8)
    np.testing.assert_array_equal(first, again)
    assert np.abs(first.astype(float) - other).mean() > 10
    assert first.std() > 10  # it is a picture of something


def test_version_1_is_drawn_to_the_bit():
    """The digest is that of the code which drew the first documented runs."""
    digest = hashlib.sha256()
    for label, character in enumerate(CHARACTERS):
        for i in range(12):
            random = np.random.default_rng([1, label, i])
            digest.update(np.asarray(sample_scene(character, random).draw()).tobytes())
            digest.update(str(random.integers(1000)).encode())
    assert digest.hexdigest() == "043f0ba8704fdd7a22421c71d7b39fbd7f22500e5b0c3231ca491c613ef64260"


def test_images_without_parts_differ_from_the_others_in_these_alone(tmp_path):
    many = [replace(CHARACTERS[5], images=40)]
    for without in (0.0, 0.5, 1.0):
        render(tmp_path / str(without), many, without)
    whole, half, none = (
        [np.asarray(Image.open(path), float) for path in sorted((tmp_path / name / "cat").iterdir())]
        for name in ("0.0", "0.5", "1.0")
    )
    changed = sum(not np.array_equal(a, b) for a, b in zip(whole, half, strict=True))
    assert 8 < changed < 30  # half of 40, and one of eight numbers of lost parts is zero
    assert sum(not np.array_equal(a, b) for a, b in zip(whole, none, strict=True)) > 30
    differences = [np.abs(a - b).max(axis=-1) > 60 for a, b in zip(whole, none, strict=True)]
    assert all(changes[0].mean() < 0.5 for changes in differences)  # the upper edge is background


def test_training_images_alone_lose_parts(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxclf.datasets.cartoons.CHARACTERS", tuple(replace(each, images=40) for each in FEW))
    whole, parts = (Cartoons(directory=str(tmp_path), without=without).load() for without in (0.0, 1.0))
    for name in ("validation", "test"):
        every = np.arange(len(whole[name]))
        np.testing.assert_array_equal(whole[name].images[every], parts[name].images[every])
    np.testing.assert_array_equal(whole.train.labels, parts.train.labels)
    every = np.arange(len(whole.train))
    assert (whole.train.images[every] != parts.train.images[every]).any(axis=(1, 2, 3)).mean() > 0.7


def test_a_share_of_images_without_parts_is_checked():
    with pytest.raises(UserError, match=r"without=1\.5: expected 0 to 1"):
        Cartoons(without=1.5)


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
