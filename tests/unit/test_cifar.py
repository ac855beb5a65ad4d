"""CIFAR-10 and CIFAR-100 are read from their binary files as published, or refused by name."""

import pickle
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from support.cifar import make_small, write_archive, write_folder
from support.datasets import assert_equal

from jaxclf.datasets import Cifar10, Cifar100, Idx, cifar, load_splits
from jaxclf.datasets.cifar import CIFAR10, CIFAR100, PIXELS, SIDE, read_release
from jaxclf.errors import UserError

RELEASES = pytest.mark.parametrize("published", [CIFAR10, CIFAR100], ids=["10", "100"])


@pytest.fixture
def small(published, random, tmp_path):
    """A small archive, the directory it is in, and the content of its files."""
    release, contents = make_small(published, random)
    return write_archive(release, contents, tmp_path / published.archive), tmp_path, contents


@RELEASES
def test_the_digests_and_addresses_are_those_of_tensorflow_datasets(published):
    name = published.archive.replace("-binary.tar.gz", "").replace("-", "")
    (package,) = find_spec("tensorflow_datasets").submodule_search_locations
    address, _, sha256, archive = Path(package, f"url_checksums/{name}.txt").read_text().split()
    assert (published.archive, published.sha256) == (archive, sha256)
    assert published.source == f"{archive} from {address}"
    assert [sum(file.images for file in files) for files in (published.train, published.test)] == [50_000, 10_000]


@RELEASES
def test_a_row_of_bytes_is_the_labels_and_the_planes_of_an_image(small, published):
    release, place, contents = small
    rows = np.concatenate(
        [np.frombuffer(contents[file.name], np.uint8).reshape(file.images, -1) for file in release.train]
    )
    for label in range(release.label_bytes):
        (images, labels), _ = read_release(str(place), release, label)
        assert labels.tolist() == rows[:, label].tolist()
        for image, row in zip(images, rows, strict=True):
            for channel, plane in enumerate(row[release.label_bytes :].reshape(3, SIDE, SIDE)):
                np.testing.assert_array_equal(image[:, :, channel], plane)


@RELEASES
def test_the_archive_and_its_folder_read_the_same_wherever_root_is(small, published):
    release, place, contents = small
    write_folder(contents, place / "unpacked" / release.folder)
    first, *others = (
        read_release(str(root), release, 0)
        for root in (place, place / release.archive, place / "unpacked", place / "unpacked" / release.folder)
    )
    for other in others:
        for mine, theirs in zip(first, other, strict=True):
            for a, b in zip(mine, theirs, strict=True):
                np.testing.assert_array_equal(a, b)
                assert a.flags.c_contiguous


def test_the_first_images_are_held_out_and_classes_have_names(random, tmp_path, monkeypatch):
    release, contents = make_small(CIFAR10, random)
    monkeypatch.setattr(cifar, "CIFAR10", write_archive(release, contents, tmp_path / release.archive))
    all_images, held_out = (Cifar10(str(tmp_path), validation).load() for validation in (0, 4))
    np.testing.assert_array_equal(held_out.validation.images, all_images.train.images[:4])
    np.testing.assert_array_equal(held_out.train.labels, all_images.train.labels[4:])
    assert_equal(held_out.test, all_images.test)
    assert all_images.validation is None
    assert len(all_images.train) == 5 * 7
    assert all_images.train.class_names[:2] == ("airplane", "automobile")
    with pytest.raises(UserError, match="validation=35: expected 0 to 34"):
        Cifar10(str(tmp_path), 35).load()


def test_labels_of_100_classes_or_20_groups(random, tmp_path, monkeypatch):
    release, contents = make_small(CIFAR100, random)
    monkeypatch.setattr(cifar, "CIFAR100", write_archive(release, contents, tmp_path / release.archive))
    rows = np.frombuffer(contents["test.bin"], np.uint8).reshape(7, -1)
    for labels, column, classes in (("coarse", 0, 20), ("fine", 1, 100)):
        test = Cifar100(str(tmp_path), validation=0, labels=labels).load().test
        assert test.labels.tolist() == rows[:, column].tolist()
        assert len(set(test.class_names)) == len(test.class_names) == classes
        assert list(test.class_names) == sorted(test.class_names)  # as in the files of names


def test_a_relative_root_is_looked_for_where_the_run_was_started(random, tmp_path, monkeypatch):
    release, contents = make_small(CIFAR10, random)
    monkeypatch.setattr(cifar, "CIFAR10", write_archive(release, contents, tmp_path / release.archive))
    dataset = Cifar10(release.archive, validation=0)
    assert len(load_splits(dataset, started_in=str(tmp_path)).train) == 35
    with pytest.raises(UserError, match="no cifar-10-binary"):
        load_splits(dataset)
    (tmp_path / "fashion").mkdir()
    with pytest.raises(UserError, match=f"no IDX file in {tmp_path / 'fashion'}"):
        load_splits(Idx("fashion"), started_in=str(tmp_path))


@RELEASES
def test_nothing_there_is_answered_with_the_address(published, tmp_path):
    with pytest.raises(UserError, match=f"no {published.archive} at {tmp_path}/none") as error:
        read_release(str(tmp_path / "none"), published, 0)
    assert f"https://www.cs.toronto.edu/~kriz/{published.archive}" in str(error.value)


class Poison:
    """Ends the tests when it is unpickled."""

    def __reduce__(self):
        return exec, ("raise SystemExit('unpickled')",)


@RELEASES
@pytest.mark.parametrize("form", ["archive", "archive in a folder", "folder", "folder itself"])
def test_the_python_version_is_refused_with_the_binary_one(published, form, tmp_path):
    archive, folder = (tmp_path / name for name in published.pickled)
    if "archive" in form:
        archive.write_bytes(pickle.dumps(Poison()))
    else:
        folder.mkdir()
        (folder / "data_batch_1").write_bytes(pickle.dumps(Poison()))
    root = {"archive": archive, "folder itself": folder}.get(form, tmp_path)
    with pytest.raises(UserError, match="Python version") as error:
        read_release(str(root), published, 0)
    assert f"https://www.cs.toronto.edu/~kriz/{published.archive}" in str(error.value)


@RELEASES
def test_an_archive_that_is_not_the_published_one_is_not_opened(small, published):
    release, place, _ = small
    path = place / release.archive
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(UserError, match=f"{release.archive} is not the published archive: its SHA-256 is not"):
        read_release(str(place), release, 0)


@RELEASES
def test_damaged_files_are_named(small, published, tmp_path):
    release, _, contents = small
    folder, last = tmp_path / "files", release.train[-1].name
    write_folder(contents, folder)
    for damaged, message in (
        (contents[last][:-1], f"{last} has {len(contents[last]) - 1:,} bytes, expected {len(contents[last]):,}"),
        (contents[last][:-1] + bytes([contents[last][-1] ^ 1]), f"{last} is damaged: its SHA-256 is not"),
    ):
        (folder / last).write_bytes(damaged)
        with pytest.raises(UserError, match=message):
            read_release(str(folder), release, 0)
    (folder / release.test[0].name).unlink()
    (folder / last).write_bytes(contents[last])
    with pytest.raises(UserError, match=f"there is no .*{release.test[0].name}"):
        read_release(str(folder), release, 0)


def test_a_file_of_another_size_is_not_read(random, tmp_path):
    release, contents = make_small(CIFAR10, random)
    write_folder(contents, tmp_path / "files")
    with (tmp_path / "files/data_batch_2.bin").open("r+b") as file:
        file.truncate(1 << 40)  # a hole: there is no disk or memory for it
    with pytest.raises(UserError, match=f"{1 << 40:,} bytes, expected {7 * (1 + PIXELS):,}"):
        read_release(str(tmp_path / "files"), release, 0)
