"""Folders of splits, tables of splits, and files that keep the split they had in a run."""

import json
import shutil

import numpy as np
import pytest
from support.pictures import png, write

from jaxclf.datasets import ImageFolder
from jaxclf.datasets.split_table import read_records, write_records
from jaxclf.errors import UserError


def count(splits):
    """Images in training, validation and test."""
    return tuple(0 if split is None else len(split) for _, split in splits.items())


def load(root, **fields):
    return ImageFolder(str(root), image_size=(4, 4), **fields).load()


def gray_values(split):
    """The gray value of each image: `write` gives every file its own."""
    return sorted(split.images[:][:, 0, 0, 0].tolist())


def read(splits):
    """The gray value and the label of each image of each split, in their order."""
    return {
        name: []
        if split is None
        else list(zip(split.images[:][:, 0, 0, 0].tolist(), split.labels.tolist(), strict=True))
        for name, split in splits.items()
    }


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("train", "val", "test"), (4, 4, 4)),
        (("training", "validation", "testing"), (4, 4, 4)),
        (("Train", "Valid", "Eval"), (4, 4, 4)),
        (("TRAIN", "dev", "Test"), (4, 4, 4)),
        (("train", "test"), (4, 0, 4)),
        (("train", "val"), (4, 0, 4)),  # then validation images are the test images
    ],
)
@pytest.mark.parametrize("around", ["", "archive", "archive/data"])
def test_folders_of_splits_are_read_as_the_author_meant_them(tmp_path, names, expected, around):
    """Case F3."""
    for name in names:
        write(tmp_path / around / name, {"ants": 2, "bees": 2})
    (tmp_path / "__MACOSX/train").mkdir(parents=True)
    (tmp_path / around / ".cache").mkdir()
    splits = load(tmp_path)
    assert splits.train.class_names == ("ants", "bees")
    assert count(splits) == expected
    assert "the splits are those of the data" in "".join(splits.remarks)
    assert ("only the last checkpoints are kept" in "".join(splits.remarks)) == (splits.validation is None)


def test_validation_images_are_held_out_where_there_are_none(tmp_path):
    write(tmp_path / "train", {"a": 20, "b": 10})
    write(tmp_path / "test", {"a": 3, "b": 3})
    splits = load(tmp_path, validation_fraction=0.2)
    assert count(splits) == (24, 6, 6)
    assert np.bincount(splits.validation.labels).tolist() == [4, 2]
    assert gray_values(splits.train) + gray_values(splits.validation) != list(range(1, 31))  # a random choice
    assert sorted(gray_values(splits.train) + gray_values(splits.validation)) == list(range(1, 31))
    write(tmp_path / "val", {"a": 1, "b": 1})
    assert count(load(tmp_path, validation_fraction=0.2)) == (30, 2, 6)


@pytest.mark.parametrize("splits", ["auto", "random"])
def test_folds_hold_out_every_image_but_those_for_testing_once(tmp_path, splits):
    write(tmp_path / "train", {"a": 14, "b": 9})
    write(tmp_path / "test", {"a": 3, "b": 3}, value=23)
    loaded = [
        load(tmp_path, splits=splits, train_fraction=0.8, test_fraction=0.2, folds=3, fold=fold) for fold in range(3)
    ]
    held_out = [set(gray_values(each.validation)) for each in loaded]
    every = set(range(1, 30)) - set(gray_values(loaded[0].test))
    assert set().union(*held_out) == every
    assert sum(map(len, held_out)) == len(every)
    for each in loaded:
        assert gray_values(each.test) == gray_values(loaded[0].test)
        assert set(gray_values(each.train)) == every - set(gray_values(each.validation))
        counts = np.bincount(each.validation.labels)
        assert all(abs(counts - np.bincount(loaded[0].validation.labels)) <= 1)
    with pytest.raises(UserError, match="fold=3: expected 0 to 2, one of 3 folds"):
        load(tmp_path, folds=3, fold=3)
    with pytest.raises(UserError, match="folds=1: expected 0 or at least 2"):
        load(tmp_path, folds=1)
    with pytest.raises(UserError, match=r"folds=15: class a has \d+ images that are not for testing"):
        load(tmp_path, folds=15)


def test_a_new_image_moves_few_others_to_another_fold(tmp_path):
    write(tmp_path / "a", {"x": 60})
    write(tmp_path / "b", {"y": 60})
    before = [set(gray_values(load(tmp_path / "a", folds=5, fold=fold).validation)) for fold in range(5)]
    (tmp_path / "a/x/new.png").write_bytes(png(200))
    after = [set(gray_values(load(tmp_path / "a", folds=5, fold=fold).validation)) for fold in range(5)]
    assert sum(len(old - new) for old, new in zip(before, after, strict=True)) <= 5


def test_a_run_with_folds_keeps_its_splits(tmp_path):
    write(tmp_path / "train", {"a": 12, "b": 12})
    write(tmp_path / "val", {"a": 4, "b": 4}, value=24)
    write(tmp_path / "test", {"a": 3, "b": 3}, value=32)
    dataset = ImageFolder(str(tmp_path), image_size=(4, 4), folds=4, fold=1)
    first = dataset.load()
    assert set(gray_values(first.validation)) & set(range(25, 33))  # validation images of the author are in the folds
    (tmp_path / "train/a/new.png").write_bytes(png(200))
    again = dataset.load(first.files)
    assert gray_values(again.validation) == gray_values(first.validation)


def test_min_images_counts_all_splits_together(tmp_path):
    write(tmp_path / "train", {"a": 3, "b": 2})
    write(tmp_path / "test", {"a": 2, "b": 1})
    splits = load(tmp_path, min_images=4)
    assert splits.train.class_names == ("a",)
    assert "left out, with fewer than 4 images: b (3)" in splits.remarks


def test_a_class_of_one_split_alone_is_an_error_that_lists_it(tmp_path):
    write(tmp_path / "train", {"a": 2, "b": 2, "c": 1})
    write(tmp_path / "test", {"a": 2, "b": 2, "d": 3})
    with pytest.raises(UserError, match="not in training and in another split") as error:
        load(tmp_path)
    assert list(error.value.items) == ["c: only in train (1 images)", "d: only in test (3 images)"]


def test_a_test_set_without_classes_is_not_a_class(tmp_path):
    write(tmp_path / "train", {"cats": 4, "dogs": 4})
    write(tmp_path, {"test": 3})
    splits = load(tmp_path)
    assert splits.train.class_names == ("cats", "dogs")
    assert splits.remarks == (f"not used: 3 files in {tmp_path / 'test'}",)


@pytest.mark.parametrize("names", [("train", "bus", "car"), ("test", "bus"), ("training", "validation")])
def test_classes_may_have_names_of_splits(tmp_path, names):
    write(tmp_path, dict.fromkeys(names, 3))
    assert load(tmp_path).train.class_names == tuple(sorted(names))


def test_what_is_beside_is_mentioned(tmp_path):
    write(tmp_path, {"a": 2, "b": 2})
    (tmp_path / "loose.png").write_bytes(png(0))
    (tmp_path / "README.txt").touch()
    assert load(tmp_path).remarks == (f"not used: 1 images beside the folders in {tmp_path}",)


def test_two_folders_of_one_split_are_an_error(tmp_path):
    for name in ("train", "val", "valid"):
        write(tmp_path / name, {"a": 1, "b": 1})
    with pytest.raises(UserError, match="two folders of validation images, val and valid"):
        load(tmp_path)


def test_the_kind_of_split_can_be_chosen(tmp_path):
    write(tmp_path / "train", {"a": 10, "b": 10})
    write(tmp_path / "test", {"a": 10, "b": 10})
    assert count(load(tmp_path, splits="folders")) == (20, 0, 20)
    assert count(load(tmp_path, splits="random", train_fraction=0.75)) == (30, 10, 0)
    with pytest.raises(UserError, match=r"no folders such as train and val .* it has a, b"):
        load(tmp_path / "train", splits="folders")
    with pytest.raises(UserError, match=r"splits=.nowhere\.csv.: expected one of auto, folders, random, or a file"):
        load(tmp_path, splits="nowhere.csv")


CSV = "path,label,split\na/000.png,x,train\na/001.png,y,train\nb/000.png,x,Val\nb/001.png,y,TEST\n"
HUGGING_FACE = "file_name,split\r\na/000.png,train\r\nb/000.png,train\r\na/001.png,test\r\nb/001.png,test\r\n"
IN_FOLDERS = "\n".join(  # huggingface/datasets#4548: one file for the folders of all splits
    json.dumps({"file_name": f"{split}/00{i}.png", "label": label})
    for split in ("train", "test")
    for i, label in enumerate("xy")
)
LINES = "\n".join(
    json.dumps({"file_name": f"{label}/00{i}.png", "label": label, "split": split})
    for label in "ab"
    for i, split in enumerate(("train", "test"))
)


@pytest.mark.parametrize(
    ("name", "text", "expected", "classes"),
    [
        ("splits.csv", CSV, (2, 1, 1), ("x", "y")),
        ("metadata.csv", "\ufeff" + HUGGING_FACE, (2, 0, 2), ("a", "b")),
        ("splits.jsonl", LINES, (2, 0, 2), ("a", "b")),
        ("metadata.jsonl", IN_FOLDERS, (2, 0, 2), ("x", "y")),
    ],
)
def test_splits_can_come_from_a_table(tmp_path, name, text, expected, classes):
    root = write(tmp_path / "pictures", {"a": 2, "b": 2, "train": 2, "test": 2})
    (root / name).write_text(text, encoding="utf-8")
    splits = load(root, splits=name)
    assert (count(splits), splits.train.class_names) == (expected, classes)


def test_a_table_without_splits_gives_the_classes(tmp_path):
    root = write(tmp_path, {"all": 8})
    rows = [f"all/{i:03d}.png,{'odd' if i % 2 else 'even'}" for i in range(8)]
    (root / "labels.csv").write_text("\n".join(["path,label", *rows]))
    splits = load(root, splits="labels.csv", train_fraction=0.5, test_fraction=0.5)
    assert splits.train.class_names == ("even", "odd")
    assert count(splits) == (4, 0, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,label\nx,y\n", "has the columns name, label; expected path"),
        ("path,label,split\na/000.png,x,train\nnowhere.png,x,test\n", "1 rows of .* cannot be used"),
        ("path,label,split\na/000.png,x,holdout\n", "1 rows of .* cannot be used"),
        ("path,label,split\na/000.png,x,train\na/001.png,x,\n", "1 rows have no split"),
        ("path,label\na/000.png,x\na/000.png,y\n", "1 files twice"),
        ("path,label\n", "lists no images"),
    ],
)
def test_faulty_tables_are_refused(tmp_path, text, message):
    root = write(tmp_path, {"a": 2})
    (root / "splits.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        load(root, splits="splits.csv")


@pytest.fixture
def recorded_folder(tmp_path):
    """A folder, its dataset and the records of its splits, written and read."""
    root = write(tmp_path / "pictures", {"a": 20, "b": 20})
    dataset = ImageFolder(str(root), image_size=(4, 4), train_fraction=0.5, test_fraction=0.3)
    write_records(tmp_path / "splits.csv", dataset.load().files)
    return root, dataset, read_records(tmp_path / "splits.csv")


def test_renamed_and_moved_files_keep_their_split(recorded_folder, tmp_path):
    """Case F4."""
    root, dataset, records = recorded_folder
    before = read(dataset.load())
    for path in list(root.rglob("*.png")):
        (path.parent / "moved").mkdir(exist_ok=True)
        path.rename(path.parent / "moved" / f"img_{path.name}")
    drawn_anew = read(dataset.load())
    assert not {gray for gray, _ in before["train"]}.isdisjoint(gray for gray, _ in drawn_anew["test"])
    for exact in (False, True):
        splits = dataset.load(records, exact)
        assert read(splits) == before
        assert splits.remarks == ()


def test_new_missing_and_changed_files_are_counted(recorded_folder):
    root, dataset, records = recorded_folder
    before = dataset.load()
    (root / "a/000.png").unlink()
    (root / "a/001.png").write_bytes(png(250))
    (root / "b/new.png").write_bytes(png(251))
    (root / "b/002.png").rename(root / "a/002_of_b.png")
    splits = dataset.load(records)
    assert "1 files are new, 1 missing and 2 changed since training" in splits.remarks
    assert not set(gray_values(splits.test)) & set(gray_values(before.train))
    with pytest.raises(UserError, match="the data is not what this run began with: 1 files are new, 1 miss") as error:
        dataset.load(records, exact=True)
    assert sorted(error.value.items) == [
        "a/000.png: missing",
        "a/001.png: changed",
        "a/002_of_b.png: now of class a",
    ]


def test_a_run_resumes_without_new_files(recorded_folder):
    root, dataset, records = recorded_folder
    before = dataset.load()
    (root / "b/new.png").write_bytes(png(251))
    splits = dataset.load(records, exact=True)
    assert count(splits) == count(before)
    assert splits.remarks == ("1 files are new, 0 missing and 0 changed since training",)


def test_an_image_that_was_trained_on_is_not_tested(tmp_path):
    root = tmp_path / "data"
    write(root / "train", {"a": 4, "b": 4})
    (root / "test/a").mkdir(parents=True)
    (root / "test/b").mkdir(parents=True)
    (root / "test/a/1.png").write_bytes(png(100))
    shutil.copy(root / "train/b/000.png", root / "test/b/1.png")  # twice, from the beginning: that is the author's
    dataset = ImageFolder(str(root), image_size=(4, 4))
    records = dataset.load().files
    assert dataset.load(records).remarks == dataset.load().remarks
    assert (
        dataset.load().remarks[-1] == "1 test images are training images too, such as test/b/1.png and train/b/000.png"
    )
    (root / "train/a/000.png").rename(root / "test/a/000.png")
    with pytest.raises(UserError, match="1 images the run was trained on would be held out") as error:
        dataset.load(records)
    assert list(error.value.items) == ["test/a/000.png: trained on, and now in test"]


def test_validation_images_that_were_drawn_are_recorded(tmp_path):
    write(tmp_path / "train", {"a": 20, "b": 20})
    write(tmp_path / "test", {"a": 5, "b": 5}, 100)
    dataset = ImageFolder(str(tmp_path), image_size=(4, 4), validation_fraction=0.3)
    splits = dataset.load()
    before = read(splits)
    for path in list(tmp_path.rglob("*.png")):
        path.rename(path.with_name(f"img_{path.name}"))
    assert read(dataset.load(splits.files)) == read(dataset.load(splits.files, exact=True)) == before
    assert read(dataset.load()) != before


def test_a_subset_is_recorded_as_it_was(tmp_path):
    root = write(tmp_path, {"a": 20, "b": 20})
    dataset = ImageFolder(str(root), image_size=(4, 4), train_fraction=0.8, subset=0.5)
    splits = dataset.load()
    before = read(splits)
    assert dataset.load(splits.files).remarks == ()
    for path in list(root.rglob("*.png")):
        path.rename(path.with_name(f"img_{path.name}"))
    assert read(dataset.load(splits.files, exact=True)) == before != read(dataset.load())


@pytest.mark.parametrize("text", ["", "path,label\n", "path,label,split,sha256\nx,y\n"])
def test_damaged_records_are_named(tmp_path, text):
    (tmp_path / "splits.csv").write_text(text)
    with pytest.raises(UserError, match=r"splits\.csv"):
        read_records(tmp_path / "splits.csv")
