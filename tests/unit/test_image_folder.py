"""Folders of classes: which folders are classes, what they are called, and how they are split."""

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.pictures import png, write

from jaxclf.datasets import ImageFolder
from jaxclf.errors import UserError
from jaxclf.training.pipeline import read_eval_batches, read_train_batches


def seen(split):
    """The greys of a split, which say which pictures it has."""
    return split.images[:][:, 0, 0, 0].tolist() if split else []


@pytest.mark.parametrize(("train", "test"), [(0.95, 0.0), (0.75, 0.2), (1.0, 0.0), (0.5, 0.5)])
def test_the_split_is_by_class_and_loses_nothing(tmp_path, train, test):
    counts = {"few": 1, "some": 20, "many": 83}
    splits = ImageFolder(str(write(tmp_path / "x", counts)), train_fraction=train, test_fraction=test).load()
    assert splits.train.class_names == ("few", "many", "some")
    parts = [splits.train, splits.validation, splits.test]
    assert sorted(value for part in parts for value in seen(part)) == list(range(1, 105))
    for label, name in enumerate(splits.train.class_names):
        for part, share in zip(parts, (train, 1 - train - test, test), strict=True):
            found = 0 if part is None else int(np.sum(part.labels == label))
            assert abs(found - share * counts[name]) <= 1


def test_the_split_follows_from_the_seed_and_images_from_labels(tmp_path):
    root = str(write(tmp_path / "x", {"a": 30, "b": 30}))
    first, again, other = (ImageFolder(root, train_fraction=0.5, seed=seed).load().train for seed in (0, 0, 1))
    assert seen(first) == seen(again) != seen(other)
    assert all((value > 30) == label for value, label in zip(seen(first), first.labels, strict=True))


def test_a_subset_is_of_training_alone(tmp_path):
    root = str(write(tmp_path / "x", {"a": 100, "b": 50, "c": 2}))
    whole, part = (ImageFolder(root, train_fraction=0.8, subset=subset).load() for subset in (1.0, 0.1))
    assert set(seen(part.train)) < set(seen(whole.train))
    assert np.bincount(part.train.labels).tolist() == [8, 4, 1]
    assert seen(part.validation) == seen(whole.validation)


def test_small_classes_are_left_out_and_named(tmp_path):
    splits = ImageFolder(str(write(tmp_path / "x", {"a": 3, "b": 9, "c": 0})), min_images=4).load()
    assert splits.train.class_names == ("b",)
    assert splits.remarks == ("left out, with fewer than 4 images: a (3), c (0)",)


@pytest.mark.parametrize("around", ["", "simpsons_dataset", "archive/simpsons_dataset"])
def test_folders_around_the_classes_are_seen_through(tmp_path, around):
    write(tmp_path / "simpsons_dataset" / around, {"homer": 2, "lisa": 2})
    splits = ImageFolder(str(tmp_path / "simpsons_dataset")).load()
    assert splits.train.class_names == ("homer", "lisa")


def test_folders_of_operating_systems_are_ignored(tmp_path):
    """Case F16: macOS writes a second tree into its archives."""
    write(tmp_path / "zip/fruit", {"apple": 2, "pear": 2})
    (tmp_path / "zip/__MACOSX/fruit/apple").mkdir(parents=True)
    (tmp_path / "zip/__MACOSX/fruit/apple/._000.png").write_bytes(b"x")
    assert ImageFolder(str(tmp_path / "zip")).load().train.class_names == ("apple", "pear")


def test_the_copy_inside_the_archive_is_not_a_class(tmp_path):
    root = tmp_path / "simpsons_dataset"
    write(root, {"homer": 2, "lisa": 2})
    write(root / "simpsons_dataset", {"homer": 2, "lisa": 2})
    assert ImageFolder(str(root)).load().train.class_names == ("homer", "lisa")


@pytest.mark.parametrize(
    ("counts", "names"),
    [
        ({"only": 3, "only/thumbs": 2}, ("only",)),
        ({"pets/kittens": 3, "dog": 2}, ("dog", "pets")),
        ({"pets/pets/kittens": 3, "pets/pets/dog": 2}, ("dog", "kittens")),
    ],
)
def test_a_class_with_folders_in_it_is_no_wrapper(tmp_path, counts, names):
    root = tmp_path / "pets"
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            (root / name / f"{i}.png").write_bytes(png(i))
    splits = ImageFolder(str(root), train_fraction=1.0).load()
    assert splits.train.class_names == names
    assert len(splits.train) == sum(counts.values())


def test_a_picture_less_moves_few_others(tmp_path):
    root = write(tmp_path / "x", {"a": 100, "b": 100})
    before = ImageFolder(str(root), train_fraction=0.8).load()
    (root / "a/050.png").unlink()
    after = ImageFolder(str(root), train_fraction=0.8).load()
    assert len(set(seen(after.train)) & set(seen(before.validation))) <= 1
    (root / "0").mkdir()  # a class more leaves the others alone
    (root / "0/x.png").write_bytes(png(255))
    assert set(seen(ImageFolder(str(root), train_fraction=0.8).load().train)) == {*seen(after.train), 255}


def test_names_that_are_no_text_are_made_text(tmp_path):
    folder = os.fsencode(tmp_path) + b"/x/caf\xe9"
    os.makedirs(folder)  # noqa: PTH103
    Path(os.fsdecode(folder + b"/1.png")).write_bytes(png(1))
    Path(os.fsdecode(folder + b"/\xe9.txt")).write_text("")
    splits = ImageFolder(str(tmp_path / "x"), unreadable="skip").load()
    assert splits.train.class_names == ("caf\N{REPLACEMENT CHARACTER}",)
    for text in (*splits.train.class_names, *splits.skipped):
        text.encode()


def test_two_folders_whose_names_print_alike_stay_two_classes(tmp_path):
    """Case F6: names in Latin-1, as archives from Windows have."""
    for i, name in enumerate((b"p\xeache", b"p\xe8che", b"pomme")):
        folder = os.fsencode(tmp_path) + b"/" + name
        os.mkdir(folder)  # noqa: PTH102
        Path(os.fsdecode(folder + b"/1.png")).write_bytes(png(i))
    splits = ImageFolder(str(tmp_path), train_fraction=1.0).load()
    assert splits.train.class_names == ("pomme", r"p\xe8che", r"p\xeache")
    assert np.bincount(splits.train.labels).tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    "fields",
    [
        {"image_size": (0, 4)},
        {"min_images": 0},
        {"train_fraction": 0.0},
        {"subset": 1.5},
        {"train_fraction": 0.9, "test_fraction": 0.2},
        {"seed": -1},
    ],
)
def test_fields_out_of_range_are_refused(fields):
    with pytest.raises(UserError, match="expected"):
        ImageFolder("x", **fields)


@pytest.mark.parametrize("keep_mib", [0, 1])
def test_kept_or_decoded_again_the_images_are_the_same(tmp_path, keep_mib):
    root = write(tmp_path / "x", {"a": 5, "b": 6})
    split = ImageFolder(str(root), image_size=(4, 4), train_fraction=1.0, keep_mib=keep_mib).load().train
    for _ in range(2):
        np.testing.assert_array_equal(split.images[:][:, 0, 0, 0], np.arange(1, 12))
        np.testing.assert_array_equal(split.images[np.array([7, 2, 7])][:, 0, 0, 0], [8, 3, 8])
    batches = read_train_batches(split, batch_size=4, remainder="pad", seed=0, start=0, stop=6)
    for batch in batches:
        assert ((batch.images[:, 0, 0, 0] > 5) == batch.labels).all()
    (root / "a/000.png").unlink()
    if keep_mib:
        assert next(read_eval_batches(split, 4)).images[0, 0, 0, 0] == 1
    else:
        with pytest.raises(UserError, match=r"000\.png was readable before and is not now"):
            list(read_eval_batches(split, 4))


names = st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="/\0"), min_size=1, max_size=12)
trees = st.dictionaries(
    names.filter(lambda name: name not in (".", "..") and len(name.encode()) < 100),
    st.lists(st.sampled_from(["picture", "text", "empty", "folder", "link", "circle", "file"]), max_size=5),
    max_size=5,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(trees)
def test_odd_folders_are_read_or_refused(tree):
    with tempfile.TemporaryDirectory() as directory:
        root, good = Path(directory, "root"), 0
        root.mkdir()
        for name, entries in tree.items():
            folder = root / name
            try:
                folder.mkdir()
            except OSError:
                continue  # the system refuses the name, or has it already
            for i, entry in enumerate(entries):
                path = folder / f"{i}.png"
                if entry == "picture":
                    path.write_bytes(png(i))
                elif entry == "folder":
                    (folder / f"ü{i}").mkdir()
                    (folder / f"ü{i}" / "x.png").write_bytes(png(i))
                elif entry == "link":
                    path.symlink_to(folder / "0.png")
                elif entry == "circle":
                    (folder / f"circle{i}").symlink_to(root)
                elif entry == "file":
                    (root / f"file{i}").touch()
                else:
                    path.write_text("x" if entry == "text" else "")
            good += entries.count("picture") * (not name.startswith("."))
        try:
            splits = ImageFolder(str(root), image_size=(4, 4), unreadable="skip").load()
        except UserError as error:
            assert "expected <root>/<class>/<image>" in str(error)
            assert good == 0
            return
        if splits.skipped:
            with pytest.raises(UserError, match="could not be decoded; fix or delete them"):
                ImageFolder(str(root), image_size=(4, 4)).load()
        parts = [split for _, split in splits.items() if split is not None]
        assert sum(map(len, parts)) >= good
        for split in parts:
            assert split.images[:].shape == (len(split), 4, 4, 3)
