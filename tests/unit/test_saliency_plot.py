"""Attributions drawn beside and over their images."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxclf import saliency
from jaxclf.errors import UserError

WEIGHTS = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32)


def linear(variables, images):
    return images.reshape(images.shape[0], -1) @ variables


def shown(axis):
    return np.asarray(axis.images[0].get_array())


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_row_has_the_image_its_map_and_the_map_over_the_image(dtype, random):
    images = (255 * random.random((2, 4, 5, 3))).astype(np.uint8)
    images = images if dtype == np.uint8 else images.astype(dtype) / 255
    a = saliency.GradientTimesInput()(linear, WEIGHTS, images, [0, 1])
    figure = a.plot(images)
    axes = np.array(figure.axes).reshape(2, 3)
    assert [axis.get_title() for axis in axes[0]] == ["image", "map", "overlay"]
    for row, image, values, score in zip(axes, images, a.values, a.score, strict=True):
        np.testing.assert_array_equal(shown(row[0]), image)
        np.testing.assert_allclose(shown(row[1]), values.sum(axis=-1), rtol=1e-6)
        overlay = shown(row[2])
        assert overlay.shape[0] * 5 == overlay.shape[1] * 4
        assert np.ptp(overlay, axis=2).max() > 100  # colors on gray
        assert row[0].get_ylabel() == f"score\n{score:.3g}"
        assert row[2].get_ylabel() == f"± {row[1].images[0].get_clim()[1]:.2g}"


def test_all_classes_share_the_colors_of_their_row(random):
    images = random.random((2, 4, 5, 3), np.float32)
    a = saliency.all_classes(saliency.GradientTimesInput())(linear, WEIGHTS, images)
    axes = np.array(a.plot(images).axes).reshape(2, 3)
    assert [axis.get_title() for axis in axes[0]] == ["image", "class 0", "class 1"]
    for i, row in enumerate(axes):
        for k, axis in enumerate(row[1:]):
            np.testing.assert_allclose(shown(axis), a.values[i, k].sum(axis=-1), rtol=1e-6)
        assert row[1].images[0].get_clim() == row[2].images[0].get_clim()


def test_flat_squares_and_maps_of_layers_are_drawn(random):
    flat = random.random((1, 25), np.float32)
    a = saliency.Gradient()(lambda v, x: x @ jnp.asarray(WEIGHTS[:25]), {}, flat, 1)
    _, drawn, _ = a.plot(flat).axes
    np.testing.assert_allclose(shown(drawn), WEIGHTS[:25, 1].reshape(5, 5), rtol=1e-6)
    small = a._replace(values=np.ones((1, 2, 2, 1), np.float32))
    assert shown(small.plot(flat).axes[1]).shape == (2, 2)


def test_images_of_another_attribution_are_refused(random):
    images = random.random((2, 4, 5, 3), np.float32)
    a = saliency.Gradient()(linear, WEIGHTS, images)
    for others in (images[:1], images[..., :2], images.reshape(2, 60)):
        with pytest.raises(UserError, match=r"for values of shape \[2, 4, 5, 3\]: expected the explained images"):
            a.plot(others)
    with pytest.raises(UserError, match=r"for values of shape \[2, 7\]"):
        a._replace(values=np.zeros((2, 7), np.float32)).plot(images)
