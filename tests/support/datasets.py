"""Properties of every dataset."""

import hashlib

import numpy as np


def assert_equal(a, b):
    np.testing.assert_array_equal(a.images[:], b.images[:])
    np.testing.assert_array_equal(a.labels, b.labels)
    assert a.class_names == b.class_names


def check_splits(dataset):
    """Splits are well formed, disjoint and the same when loaded again."""
    splits, again = dataset.load(), dataset.load()
    parts = {name: split for name, split in splits.items() if split is not None}
    digests = []
    for name, split in parts.items():
        images = split.images[:]
        assert images.dtype == np.uint8
        assert images.shape == split.images.shape == (len(split), *split.image_shape)
        assert 0 <= split.labels.min() <= split.labels.max() < len(split.class_names)
        assert split.class_names == splits.train.class_names
        assert_equal(split, again[name])
        digests += [hashlib.sha256(image).digest() for image in images]
    assert len(set(digests)) == len(digests) == sum(map(len, parts.values()))  # no image is in two
