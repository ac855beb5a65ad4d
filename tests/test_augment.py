"""Augmentations: the same key gives the same image, of the same kind, wherever in a batch it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclf.augment import Shift, augment_batch

AUGMENTATIONS = [Shift(pixels=1), Shift(pixels=3)]
IMAGES = jnp.asarray(np.random.default_rng(0).integers(1, 256, (6, 9, 7, 3), np.uint8))
KEY = jax.random.key(0)


@pytest.fixture(params=AUGMENTATIONS, ids=repr)
def augmentation(request):
    return request.param


@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.float32])
def test_shape_and_dtype_are_kept(augmentation, dtype):
    image = augmentation(KEY, IMAGES[0].astype(dtype))
    assert (image.shape, image.dtype) == (IMAGES[0].shape, dtype)


def test_the_same_key_gives_the_same_image(augmentation):
    np.testing.assert_array_equal(augmentation(KEY, IMAGES[0]), augmentation(KEY, IMAGES[0]))


def test_an_image_does_not_depend_on_its_neighbours(augmentation):
    whole = augment_batch((augmentation,), KEY, jnp.arange(6), IMAGES)
    part = augment_batch((augmentation,), KEY, jnp.array([4, 1]), IMAGES[jnp.array([4, 1])])
    np.testing.assert_array_equal(part, whole[jnp.array([4, 1])])


def test_positions_and_places_in_the_list_have_randomness_of_their_own():
    same = jnp.broadcast_to(IMAGES[0], (30, 9, 7, 3))
    once = np.asarray(augment_batch((Shift(2),), KEY, jnp.arange(30), same))
    assert len({image.tobytes() for image in once}) > 10
    twice = np.asarray(augment_batch((Shift(2), Shift(2)), KEY, jnp.arange(30), same))
    assert (once != twice).any()


def test_shift_moves_by_whole_pixels_up_to_its_limit():
    image = np.zeros((9, 9, 1), np.uint8)
    image[4, 4] = 255
    shifted = augment_batch((Shift(2),), KEY, jnp.arange(500), jnp.broadcast_to(jnp.asarray(image), (500, 9, 9, 1)))
    places = {tuple(np.argwhere(one[..., 0])[0] - 4) for one in np.asarray(shifted)}
    assert places == {(y, x) for y in range(-2, 3) for x in range(-2, 3)}


def test_no_augmentation_changes_nothing():
    assert augment_batch((), KEY, jnp.arange(6), IMAGES) is IMAGES
