"""What TensorFlow Datasets wrote is read exactly, in both formats and without TensorFlow, or refused by name."""

import io
import json
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from support.pictures import png_header
from support.tfds import DIGIT, GREY, pairs, write_tfds

from jaxclf.datasets import tfds as module
from jaxclf.datasets.tfds import Tfds
from jaxclf.datasets.tfrecord import EncodedImages
from jaxclf.errors import UserError
from jaxclf.training.pipeline import read_train_batches

ARRAY_RECORD = pytest.mark.skipif(not find_spec("array_record"), reason="the package array-record is not installed")
FORMATS = pytest.mark.parametrize("file_format", ["tfrecord", pytest.param("array_record", marks=ARRAY_RECORD)])


@pytest.fixture(scope="session")
def prepared(digits, tmp_path_factory):
    """The digits as TFDS datasets, one directory for each format."""
    root = tmp_path_factory.mktemp("tfds")
    splits = {"train": pairs(digits.train), "valid": pairs(digits.validation), "test": pairs(digits.test)}
    for file_format in ["tfrecord"] + ["array_record"] * bool(find_spec("array_record")):
        write_tfds(root / file_format, splits, file_format=file_format)
    return root


@pytest.fixture
def small(digits, tmp_path):
    """A directory with a dataset of 20 digits, to be damaged."""
    write_tfds(tmp_path, {"train": pairs(digits.train, 20)})
    return tmp_path


def read_by_tfds(directory, split):
    """The images and labels of a split, as TFDS itself decodes them."""
    options = {"split": split, "data_dir": directory, "download": False}
    if directory.name == "array_record":
        examples = list(tfds.data_source("digits:1.0.0", **options))
    else:
        config = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)  # file after file
        examples = list(tfds.load("digits:1.0.0", **options, read_config=config).as_numpy_iterator())
    return np.stack([example["image"] for example in examples]), np.array([example["label"] for example in examples])


@FORMATS
def test_every_pixel_and_label_is_as_written_and_as_tfds_reads_it(prepared, digits, file_format):
    dataset = Tfds("digits", data_dir=str(prepared / file_format))
    for splits in (dataset.load(), dataset.load()):
        for part, name in {"train": "train", "validation": "valid", "test": "test"}.items():
            split, images, labels = splits[part], splits[part].images[:], splits[part].labels
            their_images, their_labels = read_by_tfds(prepared / file_format, name)
            np.testing.assert_array_equal(images, their_images)
            np.testing.assert_array_equal(labels, their_labels)
            np.testing.assert_array_equal(images, digits[part].images)
            np.testing.assert_array_equal(labels, digits[part].labels)
            assert (images.dtype, split.images.shape, split.image_shape) == (np.uint8, images.shape, (28, 28, 1))
            assert split.class_names == tuple(f"digit {i}" for i in range(10))


@ARRAY_RECORD
def test_array_records_are_read_by_index_like_an_array(prepared, digits):
    images = Tfds("digits", data_dir=str(prepared / "array_record")).load().train.images
    assert isinstance(images, EncodedImages)
    for indices in [0, -1, slice(3, 150, 7), [202, 0, 0], np.array([5, -2]), np.zeros((2, 0), int), slice(0)]:
        np.testing.assert_array_equal(images[indices], digits.train.images[indices])
    assert len(list(images)) == 203
    with pytest.raises(IndexError):
        images[[203]]


@ARRAY_RECORD
def test_threads_may_share_the_images(prepared, digits, random):
    images = Tfds("digits", data_dir=str(prepared / "array_record")).load().train.images
    batches = random.integers(0, 203, (64, 16))
    with ThreadPoolExecutor(8) as threads:
        for batch, read in zip(batches, threads.map(images.__getitem__, batches), strict=True):
            np.testing.assert_array_equal(read, digits.train.images[batch])


@FORMATS
def test_batches_are_those_of_the_array(prepared, digits, file_format):
    split = Tfds("digits", data_dir=str(prepared / file_format)).load().train
    options = {"batch_size": 32, "remainder": "pad", "seed": 1, "start": 3, "stop": 10}
    for ours, expected in zip(
        read_train_batches(split, **options), read_train_batches(digits.train, **options), strict=True
    ):
        for a, b in zip(ours, expected, strict=True):
            np.testing.assert_array_equal(a, b)


@FORMATS
def test_the_same_images_are_held_out_every_time(prepared, digits, tmp_path, file_format):
    write_tfds(tmp_path, {"train": pairs(digits.train)}, file_format=file_format)
    splits, again = (Tfds("digits", data_dir=str(tmp_path), validation=50).load() for _ in range(2))
    parts = [{image.tobytes() for image in split.images} for split in (splits.train, splits.validation)]
    assert list(map(len, parts)) == [153, 50]
    assert parts[0] | parts[1] == {image.tobytes() for image in digits.train.images}
    np.testing.assert_array_equal(splits.validation.images[:], again.validation.images[:])
    np.testing.assert_array_equal(splits.validation.labels, again.validation.labels)


def colour(digit, row):
    """A digit as a colour picture whose size depends on the row."""
    return np.stack([digit[..., 0], digit[::-1, :, 0], digit[..., 0] // 2], -1)[: 20 + row % 9, row % 5 :]


@FORMATS
def test_colour_pictures_of_many_sizes_are_resized(digits, tmp_path, file_format):
    pictures = [colour(digit, row) for row, digit in enumerate(digits.train.images[:12])]
    files = {"png": pictures[1], "jpeg": pictures[2], "gif": pictures[3][..., 0]}
    stored = list(pictures)
    for row, (kind, picture) in enumerate(files.items(), 1):
        Image.fromarray(picture).save(file := io.BytesIO(), kind)
        stored[row] = file.getvalue()
        pictures[row] = np.array(Image.open(io.BytesIO(stored[row])).convert("RGB"))
    splits = {"train": list(zip(stored, range(10), strict=False))}
    write_tfds(tmp_path, splits, image=tfds.features.Image(), file_format=file_format)
    images = Tfds("digits", data_dir=str(tmp_path), image_size=(24, 16)).load().train.images
    assert images.shape == (10, 24, 16, 3)
    for image, picture in zip(images, pictures, strict=False):
        expected = Image.fromarray(picture).resize((16, 24), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(image, np.asarray(expected))
    with pytest.raises(UserError, match=r"digits vary in size; .* --dataset.image-size 224 224"):
        Tfds("digits", data_dir=str(tmp_path)).load()


def test_the_memory_limit_is_kept_before_anything_is_read(small):
    path = small / "digits/1.0.0/dataset_info.json"
    path.write_text(path.read_text().replace('"20"', f'"{10**12}"'))
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=r"10{12} images of 28x28x1 take 784,0.* limit is 2,147,483,648; prepare"):
            Tfds("digits", data_dir=str(small)).load()
        assert tracemalloc.get_traced_memory()[1] < 1 << 22
    finally:
        tracemalloc.stop()


def test_the_memory_limit_is_for_the_resized_images(small, monkeypatch):
    monkeypatch.setattr(module, "MEMORY_LIMIT", 20 * 14 * 14)
    assert Tfds("digits", data_dir=str(small), image_size=(14, 14)).load().train.images.shape == (20, 14, 14, 1)
    with pytest.raises(UserError, match="3,940 bytes of memory, the limit is 3,920"):
        Tfds("digits", data_dir=str(small), image_size=(1, 197)).load()


def test_a_test_split_without_labels_is_left_out(digits, tmp_path):
    unlabelled = [(image, -1) for image, _ in pairs(digits.test, 5)]
    write_tfds(tmp_path, {"train": pairs(digits.train, 5), "test": unlabelled})
    assert Tfds("digits", data_dir=str(tmp_path)).load().test is None


def test_an_old_version_is_read_without_its_code(digits, tmp_path, monkeypatch):
    write_tfds(tmp_path, {"train": pairs(digits.train, 5)}, name="mnist/1.2.3")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    for name in ("mnist", "mnist:1.2.3", "mnist:1.*.*"):
        assert Tfds(name).load().train.class_names[0] == "digit 0"  # TFDS's own mnist says "0"


@pytest.mark.parametrize("name", ["mnist", "beans:0.1.0"])
def test_what_is_not_prepared_is_said_with_the_command_that_does_it(tmp_path, name):
    with pytest.raises(UserError) as error:
        Tfds(name, data_dir=str(tmp_path)).load()
    where, command, flag = str(error.value).splitlines()
    assert where == f"{name} is not prepared in {tmp_path}. Prepare it with"
    assert command == f"  tfds build {name} --data_dir {tmp_path} --file_format array_record"
    assert flag.endswith("--dataset.download")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mnsit", "no dataset 'mnsit', nor does TFDS know that name; did you mean mnist"),
        ("kaggle:digits", "'kaggle:digits' is not the name of a dataset: expected a name such as mnist"),
        ("../digits", "is not the name of a dataset"),
        ("digits/a=True", "is not the name of a dataset"),
    ],
)
def test_unknown_names_are_refused(tmp_path, name, message):
    with pytest.raises(UserError, match=message):
        Tfds(name, data_dir=str(tmp_path), download=True).load()


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"label": tfds.features.Sequence(DIGIT)}, r"has image \(Image\), label \(Sequence\): expected one Image"),
        ({"image": tfds.features.Tensor(shape=(28, 28, 1), dtype=np.uint8)}, r"image \(Tensor\)"),
        ({"image": tfds.features.Image(shape=(28, 28, 1), dtype=np.uint16)}, "8 bits per channel"),
        ({"label": tfds.features.Scalar(np.int64)}, r"label \(Scalar\): expected .* one ClassLabel"),
    ],
    ids=["many labels", "no image", "16 bits", "no classes"],
)
def test_other_features_are_refused_by_name(tmp_path, features, message):
    write_tfds(tmp_path, {"train": []}, **features)
    with pytest.raises(UserError, match=message):
        Tfds("digits", data_dir=str(tmp_path)).load()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation": 20}, "validation=20: expected 0 to 19"),
        ({"validation": -1}, "validation=-1: expected 0 to 19"),
        ({"image_size": (0, 5)}, "image_size=.0, 5.: expected"),
    ],
)
def test_bad_options_are_refused(small, options, message):
    with pytest.raises(UserError, match=message):
        Tfds("digits", data_dir=str(small), **options).load()


def test_a_validation_split_is_not_replaced(prepared):
    with pytest.raises(UserError, match="has its own validation split"):
        Tfds("digits", data_dir=str(prepared / "tfrecord"), validation=5).load()


def test_there_must_be_something_to_train_with(digits, tmp_path):
    write_tfds(tmp_path, {"test": pairs(digits.test, 5), "train": []})
    with pytest.raises(UserError, match="no images to train with; its splits: test"):
        Tfds("digits", data_dir=str(tmp_path)).load()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:-1], "ends within a record; prepare it again"),
        (lambda content: content[:11], "ends within a record"),
        (lambda content: b"\xff" * 8 + content[8:], "ends within a record"),
        (lambda content: content + content, "40 examples, expected 20"),
        (lambda content: b"", "0 examples, expected 20"),
        (lambda content: content.replace(b"IDAT", b"JDAT"), r"cannot read example 0 of the split train of digits"),
        (lambda content: content.replace(b"label", b"lapel"), r"cannot read example 0 .*; prepare it again"),
    ],
)
def test_damaged_files_are_refused(small, damage, message):
    (path,) = small.glob("digits/1.0.0/*tfrecord*")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=message):
        Tfds("digits", data_dir=str(small)).load()
    path.unlink()
    with pytest.raises(UserError, match=r"cannot read the split train of digits/1\.0\.0: FileNotFoundError"):
        Tfds("digits", data_dir=str(small)).load()


@pytest.mark.parametrize(("height", "mode", "message"), [(27, "L", "27x28, expected 28x28"), (28, "I;16", "I;16")])
def test_pictures_that_are_not_as_announced_are_refused(tmp_path, height, mode, message):
    Image.new(mode, (28, height)).save(file := io.BytesIO(), "png")
    write_tfds(tmp_path, {"train": [(file.getvalue(), 0)]})
    with pytest.raises(UserError, match=f"cannot read example 0 .*{message}"):
        Tfds("digits", data_dir=str(tmp_path)).load()


@pytest.mark.parametrize(
    ("options", "message"),
    [({}, "9000x9000, expected 28x28"), ({"image_size": (28, 28)}, "9000x9000, expected at most 80,000,000 pixels")],
)
def test_the_size_of_a_picture_is_checked_before_its_pixels_are_decoded(tmp_path, options, message):
    write_tfds(tmp_path, {"train": [(png_header(9_000, 9_000), 0)]})
    with pytest.raises(UserError, match=message):
        Tfds("digits", data_dir=str(tmp_path), **options).load()


def test_decoders_that_images_of_files_do_not_need_are_not_tried(tmp_path):
    """Pillow has more than fifty, and that of EPS starts a program."""
    Image.new("L", (28, 28)).save(file := io.BytesIO(), "pcx")
    write_tfds(tmp_path, {"train": [(file.getvalue(), 0)]})
    with pytest.raises(UserError, match=r"cannot read example 0 .*cannot identify image file"):
        Tfds("digits", data_dir=str(tmp_path)).load()


def test_metadata_runs_no_code(small, monkeypatch):
    path = small / "digits/1.0.0/features.json"
    path.write_text(json.dumps({"type": "evil.Feature", "content": {}}))
    (small / "evil.py").write_text("raise SystemExit('code of the data directory was run')")
    monkeypatch.syspath_prepend(small)
    with pytest.raises(UserError, match=r"names code outside TFDS, 'evil\.Feature'"):
        Tfds("digits", data_dir=str(small)).load()
    assert "evil" not in sys.modules
    path.write_text("{")
    with pytest.raises(UserError, match=rf"cannot read digits in {small}: JSONDecodeError"):
        Tfds("digits", data_dir=str(small)).load()


class JaxclfDigits(tfds.core.GeneratorBasedBuilder):
    """A dataset that TFDS knows how to prepare, but for the network."""

    VERSION = tfds.core.Version("1.0.0")
    split_datasets = None

    def _info(self):
        features = tfds.features.FeaturesDict({"picture": GREY, "digit": DIGIT, "other": DIGIT})
        return tfds.core.DatasetInfo(builder=self, features=features, supervised_keys=("picture", "digit"))

    def _split_generators(self, dl_manager):
        if not self.split_datasets:
            raise ConnectionError("no network\nand more")
        return {name: self._generate_examples(split) for name, split in self.split_datasets.items()}

    def _generate_examples(self, split):
        for row, (image, label) in enumerate(pairs(split)):
            yield row, {"picture": image, "digit": label, "other": 0}


def test_download_prepares_the_dataset_by_index(digits, tmp_path, monkeypatch):
    dataset = Tfds("jaxclf_digits", data_dir=str(tmp_path), download=True)
    with pytest.raises(UserError, match=f"cannot prepare jaxclf_digits in {tmp_path}: ConnectionError: no network$"):
        dataset.load()
    monkeypatch.setattr(JaxclfDigits, "split_datasets", {"train": digits.validation})
    train = dataset.load().train
    assert isinstance(train.images, EncodedImages) == bool(find_spec("array_record"))
    expected = {image.tobytes(): label for image, label in pairs(digits.validation)}
    assert {image.tobytes(): label for image, label in zip(train.images, train.labels, strict=True)} == expected
    monkeypatch.undo()
    assert len(dataset.load().train) == 53  # it is there
