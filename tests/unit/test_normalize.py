"""Normalization inside a model: after the division by 255, by the channel."""

import numpy as np
import pytest

from jaxclf.errors import UserError
from jaxclf.models import IMAGENET, Normalize
from jaxclf.models.normalize import prepare_images

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), np.uint8)


def test_it_is_applied_after_the_division_by_255():
    expected = (IMAGES / 255 - IMAGENET.mean) / IMAGENET.std
    found = prepare_images(IMAGES, IMAGENET, "float32")
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(prepare_images(np.float32(IMAGES) / 255, IMAGENET, "float32"), found, atol=1e-6)
    np.testing.assert_array_equal(prepare_images(IMAGES.reshape(2, -1), IMAGENET, "float32"), found)
    np.testing.assert_array_equal(prepare_images(IMAGES, None, "float32"), np.float32(IMAGES) / 255)


def test_white_and_black_are_the_documented_numbers():
    white, black = prepare_images(
        np.stack([np.full((4, 4, 3), 255, np.uint8), np.zeros((4, 4, 3), np.uint8)]), IMAGENET, "float32"
    )
    np.testing.assert_allclose(white[0, 0], [2.2489, 2.4286, 2.6400], atol=1e-4)  # of torchvision.transforms.Normalize
    np.testing.assert_allclose(black[0, 0], [-2.1179, -2.0357, -1.8044], atol=1e-4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Normalize((0.5,), (0.2, 0.2)), "mean has 1 values and std 2"),
        (lambda: Normalize((), ()), "expected one per channel"),
        (lambda: Normalize((0.5,), (0.0,)), "expected values above 0"),
        (lambda: prepare_images(IMAGES[..., :1], IMAGENET, "float32"), "images have 1 channels, .* has 3 means"),
    ],
)
def test_wrong_channels_are_named(call, message):
    with pytest.raises(UserError, match=message):
        call()
