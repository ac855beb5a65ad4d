"""The bundled MNIST is the published one; IDX files are read exactly, or refused by name."""

import gzip
import hashlib
import struct
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image
from support.cifar import make_small, write_folder
from support.components import DATASETS, FOLDER
from support.datasets import assert_equal, check_splits
from support.tfds import pairs, write_tfds

from jaxclf import datasets
from jaxclf.datasets import Cartoons, Idx, Mnist, PartsMix, cifar
from jaxclf.datasets.idx import read_idx
from jaxclf.datasets.mnist import SHA256
from jaxclf.errors import UserError
from jaxclf.types import Split, Splits

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 3, 4), np.uint8)
LABELS = np.array([2, 0, 1, 2, 1], np.uint8)
SMALL = Split(IMAGES[..., None], LABELS, ("0", "1", "2"))
COMPRESS = pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gzip"])


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_set(directory, images=IMAGES, labels=LABELS, prefix="", test="t10k", compress=bytes):
    """The same images and labels to train and to test with, those to test with backwards."""
    end = ".gz" if compress is gzip.compress else ""
    for part, order in (("train", 1), (test, -1)):
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            (directory / f"{prefix}{part}-{kind}-ubyte{end}").write_bytes(compress(idx(array[::order])))


def read(content, sha256=None):
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "some-idx"
        path.write_bytes(content)
        return read_idx(path, sha256)


def read_or_refuse(content):
    """The array, or None where the file was refused by its name."""
    try:
        return read(content)
    except UserError as error:
        assert "some-idx" in str(error)
        return None


@pytest.fixture(scope="module", autouse=True)
def folder():
    """Real digits in a folder a class, and as TFDS writes them; noise in the format of CIFAR."""
    train = Mnist().load().train
    for i in range(40):
        path = FOLDER / f"digit {train.labels[i]}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(train.images[i, ..., 0]).save(path)
    both = pairs(train, 40)
    write_tfds(FOLDER.with_name("tfds"), {"train": both[:30], "test": both[30:]})
    with pytest.MonkeyPatch.context() as patch:
        for name in ("CIFAR10", "CIFAR100"):
            small, contents = make_small(getattr(cifar, name), np.random.default_rng(0))
            write_folder(contents, FOLDER.with_name("cifar") / small.folder)
            patch.setattr(cifar, name, small)
        yield


@pytest.mark.parametrize(
    "dataset", [one for one in DATASETS if not isinstance(one, Cartoons | PartsMix)], ids=lambda one: type(one).__name__
)
def test_the_law_of_datasets(dataset):
    check_splits(dataset)


@pytest.fixture(scope="module")
def published():
    return Mnist(validation=0).load()


@pytest.mark.parametrize(("part", "n"), [("train", 55_000), ("validation", 5_000), ("test", 10_000)])
def test_images_are_grey_bytes_and_labels_digits(mnist, part, n):
    split = mnist[part]
    assert (split.images.dtype, split.labels.dtype) == (np.uint8, np.int32)
    assert split.images.shape == (len(split), *split.image_shape) == (n, 28, 28, 1)
    assert set(split.labels.tolist()) == set(range(10))
    assert split.class_names == tuple("0123456789")


def test_validation_is_the_first_images_and_training_the_rest_in_every_load(mnist, published):
    for name in ("images", "labels"):
        both = np.concatenate([getattr(mnist.validation, name), getattr(mnist.train, name)])
        np.testing.assert_array_equal(both, getattr(published.train, name))
    assert_equal(mnist.test, published.test)
    assert published.validation is None


def test_published_counts_order_and_mean(published):
    # The counts of each class as published; PyTorch Lightning's tests have those of training too.
    train = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    test = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert np.bincount(published.train.labels).tolist() == train
    assert np.bincount(published.test.labels).tolist() == test
    assert published.train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    # PyTorch's MNIST example subtracts this mean.
    assert published.train.images.mean() / 255 == pytest.approx(0.1307, abs=5e-5)


@pytest.mark.parametrize("validation", [-1, 60_000])
def test_some_images_must_stay_to_train(validation):
    with pytest.raises(UserError, match=f"validation={validation}: expected 0 to 59999"):
        Mnist(validation=validation).load()


@pytest.mark.parametrize("name", SHA256)
def test_damage_that_gzip_does_not_see_is_seen(tmp_path, name):
    path = tmp_path / f"{name}.gz"
    content = bytearray(gzip.decompress(Path(datasets.__file__).with_name(path.name).read_bytes()))
    content[-1] ^= 1
    path.write_bytes(gzip.compress(content, compresslevel=0))
    read_idx(path)
    with pytest.raises(UserError, match=rf"{name}\.gz is damaged"):
        read_idx(path, SHA256[name])


@COMPRESS
@pytest.mark.parametrize("prefix", ["", "emnist-letters-"])
@pytest.mark.parametrize("test", ["t10k", "test"])
def test_any_naming_reads_the_same(tmp_path, prefix, test, compress):
    write_set(tmp_path, prefix=prefix, test=test, compress=compress)
    splits = Idx(str(tmp_path), prefix=prefix).load()
    assert_equal(splits.train, SMALL)
    assert_equal(splits.test, Split(SMALL.images[::-1], SMALL.labels[::-1], SMALL.class_names))


def test_transposed_images_are_turned_back_and_the_first_held_out(tmp_path):
    write_set(tmp_path, images=IMAGES.swapaxes(1, 2))
    splits = Idx(str(tmp_path), transposed=True, validation=2).load()
    assert_equal(splits.validation, Split(SMALL.images[:2], LABELS[:2], SMALL.class_names))
    assert_equal(splits.train, Split(SMALL.images[2:], LABELS[2:], SMALL.class_names))


def test_a_missing_file_says_what_was_looked_for(tmp_path):
    write_set(tmp_path, prefix="a-")
    (tmp_path / "a-t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(UserError) as error:
        Idx(str(tmp_path), prefix="a-").load()
    names = [f"a-{part}-labels-idx1-ubyte{end}" for part in ("t10k", "test") for end in ("", ".gz")]
    assert str(error.value).endswith(f"{tmp_path}: looked for {', '.join(names)}")


@pytest.mark.parametrize(("images", "labels"), [(IMAGES, LABELS[:3]), (IMAGES, IMAGES), (LABELS, LABELS)])
def test_images_and_labels_that_do_not_fit_are_refused(tmp_path, images, labels):
    write_set(tmp_path, images, labels)
    with pytest.raises(UserError, match=r"/train-images-idx3-ubyte has shape .* train-labels-idx1-ubyte has"):
        Idx(str(tmp_path)).load()


@COMPRESS
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "starts with 0x$"),
        (b"\0\0\x0d\1" + idx(LABELS)[4:], "starts with 0x00000d01"),
        (b"\0\0\x08\0" + idx(LABELS)[4:], "starts with 0x00000800"),
        (idx(IMAGES)[:15], "ends within its header"),
        (idx(LABELS)[:-1], "holds 4 bytes where its header says 5"),
        (idx(LABELS) + b"\0", "holds more bytes where its header says 5"),
    ],
    ids=["empty", "floats", "no dimensions", "header", "short", "trailing"],
)
def test_bad_content_is_refused(content, message, compress):
    with pytest.raises(UserError, match=rf"/some-idx.*{message}"):
        read(compress(content))


@pytest.mark.parametrize("kept", [2, 9, 30, -1])
def test_a_truncated_gzip_file_is_refused(kept):
    with pytest.raises(UserError, match=r"cannot read .*/some-idx"):
        read(gzip.compress(idx(IMAGES))[:kept])


@COMPRESS
def test_a_header_that_claims_terabytes_costs_nothing(compress):
    content = compress(bytes([0, 0, 8, 3]) + struct.pack(">3I", 1 << 20, 1 << 10, 1 << 10) + bytes(100))
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=f"fewer bytes where its header says {1 << 40}"):
            read(content)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@settings(deadline=None)
@given(
    images=arrays(np.uint8, array_shapes(min_dims=3, max_dims=3, min_side=0, max_side=5)),
    compress=st.sampled_from([bytes, gzip.compress]),
)
def test_idx_round_trip(images, compress):
    found = read(compress(idx(images)), hashlib.sha256(idx(images)).hexdigest())
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, images)


@settings(deadline=None)
@given(
    start=st.sampled_from([b"\0\0\x08\3", b"\0\0\x08\4", b"", b"\0\0\x08\1", b"\0\0\x08\2\0\0\0\3\0\0\0"]),
    rest=st.binary(),
    compress=st.sampled_from([bytes, gzip.compress, lambda content: b"\x1f\x8b\x08" + content]),
)
def test_any_bytes_are_an_array_or_refused(start, rest, compress):
    found = read_or_refuse(compress(start + rest))
    assert found is None or idx(found) == start + rest


@settings(deadline=None)
@given(data=st.data(), flip=st.integers(1, 255))
def test_a_changed_byte_of_a_gzip_file_is_harmless_or_noticed(data, flip):
    content = bytearray(gzip.compress(idx(IMAGES)))
    content[data.draw(st.integers(0, len(content) - 1))] ^= flip
    found = read_or_refuse(bytes(content))
    # Harmless in the header of gzip: the time, the system.
    assert found is None or np.array_equal(found, IMAGES)


@pytest.mark.parametrize("wrong", [-1, 3])
def test_labels_out_of_range_are_refused(wrong):
    with pytest.raises(UserError, match=rf"labels range from .*{wrong}.* 3 classes: 0 to 2"):
        Split(IMAGES[:2, ..., None], np.array([0, wrong]), ("a", "b", "c"))


def test_each_image_has_a_label():
    with pytest.raises(UserError, match="5 images but 4 labels"):
        Split(IMAGES[..., None], LABELS[:4], ("a", "b", "c"))


@pytest.mark.parametrize("name", ["validation", "valid"])
def test_a_missing_split_names_those_present(name):
    with pytest.raises(UserError, match=f"no split '{name}'; it has train, test$"):
        Splits(SMALL, None, SMALL)[name]
