"""Arrays in memory: every mistake has its error, contents decide equality, and `config.json` holds no data."""

import json
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from jaxclf.config import Config
from jaxclf.config_io import find_differences, flatten, from_json, to_json
from jaxclf.datasets import Arrays
from jaxclf.errors import UserError
from jaxclf.models import Mlp
from jaxclf.optimizers import Adam
from jaxclf.training.pipeline import read_train_batches

RANDOM = np.random.default_rng(0)
LABELS = np.repeat(np.arange(4), (40, 30, 20, 7))
IMAGES = RANDOM.integers(0, 256, (len(LABELS), 5, 6), dtype=np.uint8)
PAIR = (IMAGES[:9], LABELS[:9])
FLOATS = IMAGES / 255
NAMES = ("a", "b", "c", "d")


def with_value(value, array=FLOATS):
    """The array with one other value, in its third element."""
    array = array.copy()
    array[2] = value
    return array


def rows_of(split):
    """The position in IMAGES of each image of a split; images are unique."""
    return [int(np.flatnonzero((image[..., 0] == IMAGES).all(axis=(1, 2)))[0]) for image in split.images]


@pytest.mark.parametrize("images", [IMAGES, IMAGES[..., None], jnp.asarray(IMAGES)], ids=["nhw", "nhwc", "jax"])
def test_images_of_8_bits_are_kept_as_they_are(images):
    splits = Arrays(images, LABELS).load()
    assert (splits.train.images.dtype, splits.train.labels.dtype) == (np.uint8, np.int32)
    np.testing.assert_array_equal(splits.train.images, IMAGES[..., None])
    np.testing.assert_array_equal(splits.train.labels, LABELS)
    assert splits.train.class_names == ("0", "1", "2", "3")
    assert (splits.validation, splits.test, splits.train.sample_weight) == (None, None, None)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_float_images_become_float32(dtype):
    images = Arrays(FLOATS.astype(dtype), LABELS).load().train.images
    assert images.dtype == np.float32
    np.testing.assert_array_equal(images[..., 0], FLOATS.astype(dtype).astype(np.float32))


def test_images_are_not_copied():
    images = IMAGES[..., None]
    assert np.shares_memory(Arrays(images, LABELS, test=PAIR).load().train.images, images)


def test_memory_maps_stay_memory_maps(tmp_path):
    np.save(tmp_path / "images.npy", IMAGES)
    images = np.load(tmp_path / "images.npy", mmap_mode="r")
    assert isinstance(Arrays(images, LABELS).load().train.images, np.memmap)


@pytest.mark.parametrize(
    "labels",
    [
        LABELS,
        LABELS.tolist(),
        LABELS.astype(np.uint8),
        jnp.asarray(LABELS),
        *(np.eye(4, dtype=t)[LABELS] for t in "?if"),
    ],
    ids=["int", "list", "uint8", "jax", "one-hot bool", "one-hot int", "one-hot float"],
)
def test_labels_of_every_kind_are_the_same_dataset(labels):
    assert Arrays(IMAGES, labels) == Arrays(IMAGES, LABELS)


@pytest.mark.parametrize("kind", [list, np.array, lambda labels: np.array(labels, object)])
def test_strings_are_numbered_in_sorted_order(kind):
    words = kind([("wolf", "ant", "bee", "cat")[label] for label in LABELS])
    train = Arrays(IMAGES, words).load().train
    assert train.class_names == ("ant", "bee", "cat", "wolf")
    np.testing.assert_array_equal(train.labels, np.array([3, 0, 1, 2])[LABELS])
    names = ("wolf", "ant", "bee", "cat")
    np.testing.assert_array_equal(Arrays(IMAGES, words, class_names=names).load().train.labels, LABELS)


def test_class_names_allow_classes_without_images():
    train = Arrays(IMAGES, LABELS + 2, class_names=list("abcdefg")).load().train
    assert train.class_names == tuple("abcdefg")
    assert len(Arrays(IMAGES, np.eye(9)[LABELS]).load().train.class_names) == 9


MISTAKES = {
    "flat": (
        {"images": IMAGES.reshape(97, 30)},
        r"images have shape \[97, 30\]: expected \[n, h, w\] or \[n, h, w, c\]",
    ),
    "no images": ({"images": IMAGES[:0], "labels": LABELS[:0]}, r"images have shape \[0, 5, 6\]"),
    "channels first": ({"images": np.zeros((97, 3, 8, 8), np.uint8)}, r"channels come last; use images\.transpose"),
    "int64": ({"images": IMAGES.astype(int)}, r"images are int64: expected uint8.*use images\.astype\(np\.uint8\)"),
    "uint16": ({"images": IMAGES.astype(np.uint16) * 257}, r"images are uint16: .*scale them to floats in \[0, 1\]"),
    "bool": ({"images": IMAGES > 9}, r"images are bool: expected uint8.*scale them to floats"),
    "0 to 255": (
        {"images": IMAGES.astype(np.float32)},
        r"floats from 0 to 255: expected \[0, 1\]; divide them by 255",
    ),
    "standardized": ({"images": FLOATS - 0.5}, r"floats from -0\.5 to 0\.5: .*leave standardization to the model"),
    "a little above 1": ({"images": FLOATS * 1.25}, r"floats from 0 to 1\.25: expected \[0, 1\]; scale them"),
    "NaN": ({"images": with_value(np.nan)}, r"images have NaN or infinite values in 1 images, first in image 2"),
    "infinite": ({"images": with_value(np.inf)}, r"images have NaN or infinite values in 1 images, first in image 2"),
    "few labels": ({"labels": LABELS[:9]}, r"97 images but labels of shape \[9\]"),
    "one label": ({"labels": np.array(3)}, r"97 images but labels of shape \[\]"),
    "column": ({"labels": LABELS[:, None]}, r"labels have shape \[97, 1\]: .*; use labels\.ravel\(\)"),
    "cube": ({"labels": np.zeros((97, 2, 2), int)}, r"labels have shape \[97, 2, 2\]: expected \[n\]"),
    "float labels": ({"labels": LABELS / 1}, r"labels are float64: .*use labels\.astype\(int\)"),
    "bytes": ({"labels": LABELS.astype("S")}, r"labels are \|S21: .*use labels\.astype\(str\)"),
    "gap": ({"labels": LABELS + (LABELS > 1)}, r"labels have gaps: no image has class 2 of 0 to 4; .*all 5 classes"),
    "from 1": ({"labels": LABELS + 1}, r"labels have gaps: no image has class 0 of 0 to 4"),
    "huge": ({"labels": LABELS * 10**9}, r"labels have gaps: no image has class 1 of 0 to 3000000000"),
    "negative": ({"labels": LABELS - 1}, r"labels range from -1 to 2: expected 0 to 2"),
    "few names": ({"class_names": ("a", "b")}, r"labels range from 0 to 3: expected 0 to 1"),
    "same name": ({"class_names": ("a", "b", "a", "d")}, r"class_names has 'a' more than once"),
    "two-hot": ({"labels": np.eye(4)[LABELS] + (np.eye(97)[:, 5:6])}, r"not one-hot in 1 rows, first in row 5"),
    "soft": ({"labels": np.full((97, 4), 0.25)}, r"not one-hot in 97 rows, first in row 0: expected a single 1"),
    "columns": (
        {"labels": np.eye(5)[LABELS], "class_names": NAMES},
        r"labels have 5 columns but there are 4 class names",
    ),
    "unknown word": (
        {"labels": [*"abcd" * 24, "x"], "class_names": NAMES},
        r"labels have 'x': expected one of a, b, c, d",
    ),
    "count": ({"validation": 9}, r"validation=9: expected a fraction below 1"),
    "all": ({"test": 1.0}, r"test=1\.0: expected a fraction below 1"),
    "below 0": ({"test": -0.1}, r"test=-0\.1: expected a fraction below 1"),
    "both": ({"validation": 0.5, "test": 0.5}, r"validation and test hold out 1 of the images: expected less than 1"),
    "too small": ({"validation": 0.001}, r"validation=0\.001 of 97 images holds out none; increase it"),
    "pair sizes": ({"test": (IMAGES[:9], LABELS[:8])}, r"9 images but test labels of shape \[8\]"),
    "pair shape": (
        {"test": (IMAGES[:9, :4], LABELS[:9])},
        r"test images are uint8\[4, 6, 1\]: expected uint8\[5, 6, 1\]",
    ),
    "pair dtype": (
        {"test": (FLOATS[:9], LABELS[:9])},
        r"test images are float32\[5, 6, 1\]: expected uint8\[5, 6, 1\]",
    ),
    "pair class": ({"test": (IMAGES[:9], LABELS[:9] + 9)}, r"test labels range from 9 to 9: expected 0 to 3"),
    "pair NaN": (
        {"images": FLOATS, "validation": (with_value(np.nan), LABELS)},
        r"validation images have NaN or infinite values in 1 images",
    ),
    "weights": ({"sample_weight": np.ones(9)}, r"sample_weight has shape \[9\]: expected \[97\]"),
    "weight below 0": ({"sample_weight": with_value(-1, np.ones(97))}, "sample_weight has negative, NaN or infinite"),
    "weight NaN": ({"sample_weight": with_value(np.nan, np.ones(97))}, "sample_weight has negative, NaN or infinite"),
    "no weight": ({"sample_weight": np.zeros(97)}, "sample_weight is 0 for every image"),
    "weight text": ({"sample_weight": np.full(97, "1")}, "sample_weight is <U1: expected floats"),
    "seed": ({"seed": -1}, r"seed=-1: expected at least 0"),
}


@pytest.mark.parametrize(("changes", "message"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_has_an_error_that_names_the_fix(changes, message):
    with pytest.raises(UserError, match=message):
        Arrays(**{"images": IMAGES, "labels": LABELS} | changes)


def test_images_of_several_sizes_are_refused():
    images = np.empty(2, object)
    images[:] = [IMAGES[0], IMAGES[1, :4]]
    with pytest.raises(UserError, match="images differ in shape: resize them"):
        Arrays(images, LABELS[:2])


CHANGES = {
    "images": with_value(0, IMAGES),
    "labels": LABELS[::-1],
    "validation": 0.2,
    "test": (IMAGES[:8], LABELS[:8]),
    "class_names": NAMES,
    "sample_weight": np.linspace(1, 2, 97),
    "seed": 1,
}
WHOLE = {"images": IMAGES, "labels": LABELS, "validation": 0.1, "test": PAIR}


def test_equal_contents_are_equal_datasets():
    pair = (PAIR[0].copy(), PAIR[1].copy())
    copies = {"images": IMAGES.copy(), "labels": LABELS.copy(), "validation": 0.1, "test": pair}
    assert Arrays(**copies) == Arrays(**WHOLE)
    assert hash(Arrays(**copies)) == hash(Arrays(**WHOLE))
    assert Arrays(**WHOLE) != "another object"


@pytest.mark.parametrize("field", CHANGES)
def test_any_other_field_is_another_dataset(field):
    changed = replace(Arrays(**WHOLE), **{field: CHANGES[field]})
    assert changed != Arrays(**WHOLE)
    assert hash(changed) != hash(Arrays(**WHOLE))
    assert all(line.startswith(field) for line in find_differences(to_json(Arrays(**WHOLE)), to_json(changed)))


def test_the_shape_and_the_dtype_count():
    zeros = np.zeros((4, 2, 6), np.uint8)
    labels = [0, 1, 0, 1]
    assert Arrays(zeros, labels) != Arrays(zeros.reshape(4, 6, 2), labels)
    assert Arrays(zeros, labels) != Arrays(zeros.astype(np.float32), labels)


def test_a_config_holds_digests_and_no_data():
    dataset = Arrays(**WHOLE, sample_weight=np.linspace(0, 1, 97), class_names=NAMES)
    config = Config(dataset=dataset, model=Mlp(features=(), classes=4), optimizer=Adam(0.1), epochs=1, batch_size=8)
    text = json.dumps(to_json(config))
    flat = flatten(json.loads(text))
    assert flat["dataset.class"] == "jaxclf.datasets.arrays.Arrays"
    assert flat["dataset.images.shape"] == [97, 5, 6, 1]
    assert len(flat["dataset.test.0.sha256"]) == 64
    assert flat["dataset.class_names"] == ["a", "b", "c", "d"]
    assert len(text) < 4_000  # fewer characters than pixels
    again = from_json(json.loads(text))
    assert again == config
    assert hash(again.dataset) == hash(dataset)
    assert to_json(again) == to_json(config)
    assert json.loads(text) == to_json(Config(**vars(config)))
    with pytest.raises(UserError, match=r"arrays of shape \[97, 5, 6, 1\], which config.json does not hold; .*splits="):
        again.dataset.load()


def test_arrays_that_were_changed_afterwards_are_refused():
    images = IMAGES.copy()
    dataset = Arrays(images, LABELS)
    images[3] = 0
    with pytest.raises(UserError, match="changed after Arrays"):
        dataset.load()


@pytest.mark.parametrize(("validation", "test"), [(0.1, None), (None, 0.25), (0.1, 0.25), (0.5, 0.4), (0.02, 0.03)])
def test_fractions_are_disjoint_by_class_and_the_same_twice(validation, test):
    dataset = Arrays(IMAGES, LABELS, validation=validation, test=test)
    splits, again = dataset.load(), Arrays(IMAGES.copy(), LABELS, validation=validation, test=test).load()
    every = []
    for (name, split), (_, same) in zip(splits.items(), again.items(), strict=True):
        fraction = {"train": None, "validation": validation, "test": test}[name]
        if split is None:
            assert fraction is None and same is None
            continue
        rows = rows_of(split)
        every += rows
        assert rows == sorted(rows) == rows_of(same)
        np.testing.assert_array_equal(split.labels, LABELS[rows])
        if fraction is not None:
            counts, whole = np.bincount(split.labels, minlength=4), np.bincount(LABELS)
            assert abs(len(split) - fraction * len(LABELS)) <= 1
            assert (np.abs(counts - fraction * whole) <= 1).all()
    assert sorted(every) == list(range(len(LABELS)))
    assert set(splits.train.labels) == {0, 1, 2, 3}


def test_the_choice_depends_on_the_seed_and_is_no_slice():
    chosen = [rows_of(Arrays(IMAGES, LABELS, validation=0.2, seed=seed).load().validation) for seed in (0, 1)]
    assert chosen[0] != chosen[1]
    for rows in chosen:
        first = [row for row in rows if row < 40]
        assert np.ptp(first) + 1 > len(first)


def test_a_class_of_one_image_is_trained_on():
    splits = Arrays(IMAGES[:4], ["x", "x", "x", "y"], validation=0.7).load()
    assert splits.train.labels.tolist() == [0, 1]
    assert splits.validation.labels.tolist() == [0, 0]


def test_weights_follow_their_images():
    weights = np.linspace(0, 1, 97)
    splits = Arrays(IMAGES, LABELS, validation=0.3, test=PAIR, sample_weight=weights).load()
    np.testing.assert_array_equal(splits.train.sample_weight, weights[rows_of(splits.train)].astype(np.float32))
    assert splits.validation.sample_weight is None
    assert splits.test.sample_weight is None


def test_a_zero_fraction_holds_out_nothing():
    assert Arrays(IMAGES, LABELS, validation=0.0, test=0) == Arrays(IMAGES, LABELS)


@pytest.mark.parametrize("together", [None, 2])
def test_training_batches_have_the_weights_of_their_images(together):
    weights = np.linspace(0, 1, 97).astype(np.float32)
    train = Arrays(IMAGES, LABELS, sample_weight=weights).load().train
    options = {"batch_size": 10, "remainder": "pad", "seed": 0, "start": 0, "stop": 10, "together": together}
    seen = []
    for batch in read_train_batches(train, **options):
        images, labels, mask, given = (x.reshape(-1, *x.shape[2:]) if together else x for x in batch)
        rows = np.array([np.flatnonzero((image[..., 0] == IMAGES).all(axis=(1, 2)))[0] for image in images])
        np.testing.assert_array_equal(given, weights[rows])
        np.testing.assert_array_equal(labels, LABELS[rows])
        seen += rows[mask].tolist()
    assert sorted(seen) == list(range(97))
    assert next(read_train_batches(Arrays(IMAGES, LABELS).load().train, **options)).weights is None
