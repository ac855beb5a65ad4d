"""Features that are removed as a whole: Occlusion by mask, Shapley values by sampling, superpixels."""

from itertools import permutations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclf import saliency
from jaxclf.errors import UserError
from jaxclf.saliency.features import divide_into_cells

B, CLASSES = 3, 2
QUADRANTS = np.repeat(np.repeat([[5, 1], [-3, 7]], 2, axis=0), 3, axis=1)
"""Labels [4, 6] of four regions: any integers."""


def curved(weights, images):
    """Classes whose pixels work together."""
    flat = images.reshape(images.shape[0], -1)
    return jnp.tanh(flat @ weights) + (flat**2 @ weights) ** 2


@pytest.fixture
def weights(random):
    return random.normal(size=(24, CLASSES)).astype(np.float32) / 3


@pytest.fixture
def images(random):
    return random.random((B, 4, 6, 1), np.float32)


def enumerate_shapley(weights, images, baseline, labels, target):
    """The mean gain of each feature over all orders, [b, features], features in ascending order of their labels."""
    names = np.unique(labels)
    gains, orders = np.zeros((len(images), len(names))), list(permutations(range(len(names))))
    for order in orders:
        shown = np.broadcast_to(baseline, images.shape).copy()
        before = curved(weights, shown)[:, target]
        for i in order:
            shown = np.where((labels == names[i])[..., None], images, shown)
            after = curved(weights, shown)[:, target]
            gains[:, i] += after - before
            before = after
    return gains / len(orders)


def sum_by_feature(values, labels):
    labels = np.broadcast_to(labels, values.shape[:3])
    pixels = values.sum(axis=-1)
    return np.stack([np.where(labels == name, pixels, 0).sum(axis=(1, 2)) for name in np.unique(labels)], axis=1)


@pytest.mark.parametrize("labels", [QUADRANTS, np.stack([QUADRANTS, QUADRANTS[::-1], np.full((4, 6), 7)])])
def test_sampled_shapley_values_are_the_enumerated_ones_within_four_standard_errors(weights, images, labels):
    key = jax.random.key(0)
    a = saliency.ShapleySampling(samples=200)(curved, weights, images, 1, key=key, baseline=0.3, features=labels)
    found = sum_by_feature(np.asarray(a.values), labels)
    expected = enumerate_shapley(weights, images, 0.3, labels, 1)
    stderr = sum_by_feature(np.asarray(a.stderr), labels)
    assert (np.abs(found - expected) <= 4 * stderr + 1e-5).all()
    size = np.abs(expected).max()
    assert 1e-4 * size < np.median(stderr[:2]) < 0.3 * size  # neither rounding nor noise
    np.testing.assert_allclose(found.sum(axis=1), a.score - curved(weights, np.full_like(images, 0.3))[:, 1], atol=1e-5)
    np.testing.assert_allclose(a.delta, 0, atol=1e-5)
    assert (a.evaluations == 200 * 3 + 2).all()


def test_values_sum_to_the_change_of_the_score_with_any_number_of_samples(weights, images):
    for method in (saliency.ShapleySampling(samples=2), saliency.ShapleySampling(samples=3, grid=2, max_rows=4)):
        a = method(curved, weights, images, key=jax.random.key(0))
        np.testing.assert_allclose(a.delta, 0, atol=1e-5)
    one = saliency.ShapleySampling(samples=2, grid=1)(curved, weights, images, key=jax.random.key(0))
    change = np.asarray(one.score - curved(weights, 0 * images).max(axis=1))
    np.testing.assert_allclose(one.values, np.broadcast_to(change[:, None, None, None] / 24, images.shape), atol=1e-6)
    np.testing.assert_allclose(one.stderr, 0, atol=1e-6)


def test_with_a_tolerance_each_example_stops_when_its_standard_errors_are_small(weights, images):
    images = images * np.float32([0.01, 0.3, 1]).reshape(3, 1, 1, 1)
    method = saliency.ShapleySampling(samples=400, grid=2, tolerance=0.03)
    a = method(curved, weights, images, 1, key=jax.random.key(0))
    sizes = np.abs(a.values).max(axis=(1, 2, 3))
    done = a.stderr.max(axis=(1, 2, 3)) <= 0.03 * sizes * 1.001
    assert (done | (a.evaluations == 400 * 3 + 2)).all()
    assert a.evaluations.min() < 400 * 3 + 2
    np.testing.assert_allclose(a.delta, 0, atol=1e-5)


def test_regions_of_other_images_do_not_change_a_map(weights, images):
    """The images have four, three and one regions; alone the numbers of regions differ from those in the batch."""
    labels = np.stack([QUADRANTS, np.where(QUADRANTS == 5, 1, QUADRANTS), np.full((4, 6), 7)])
    keys = jax.random.split(jax.random.key(0), B)
    method = saliency.ShapleySampling(samples=3)
    together = method(curved, weights, images, 1, key=keys, features=labels).values
    for i in range(B):
        one = slice(i, i + 1)
        alone = method(curved, weights, images[one], 1, key=keys[one], features=labels[one]).values
        np.testing.assert_allclose(alone[0], together[i], rtol=1e-5, atol=1e-6)


def test_of_a_linear_model_every_order_gives_the_same(weights, images):
    def linear(weights, images):
        return images.reshape(B, -1) @ weights

    method, pixels = saliency.ShapleySampling(samples=2), np.arange(24).reshape(4, 6)
    a = method(linear, weights, images, 0, key=jax.random.key(0), features=pixels)
    np.testing.assert_allclose(a.values, images * weights[:, 0].reshape(4, 6, 1), atol=1e-5)


def test_occlusion_of_single_pixels_by_mask_is_that_of_windows_of_one(weights, images):
    pixels = np.random.default_rng(0).permutation(24).reshape(4, 6)
    by_mask = saliency.Occlusion()(curved, weights, images, baseline=0.2, features=pixels)
    by_window = saliency.Occlusion(1, 1)(curved, weights, images, baseline=0.2)
    for x, y in zip(by_mask, by_window, strict=True):
        if x is not None:
            np.testing.assert_allclose(x, y, atol=1e-6)
    regions = saliency.Occlusion(max_rows=2)(curved, weights, images, features=jnp.asarray(QUADRANTS))
    windows = saliency.Occlusion((2, 3), (2, 3))(curved, weights, images)
    np.testing.assert_allclose(regions.values, windows.values, atol=1e-6)


def test_all_classes_flat_images_and_colors_have_features_too(weights, images, random):
    method, key = saliency.Occlusion(), jax.random.key(0)
    every = saliency.all_classes(method)(curved, weights, images, features=QUADRANTS)
    single = method(curved, weights, images, 1, features=QUADRANTS)
    np.testing.assert_allclose(every.values[:, 1], single.values, atol=1e-6)
    flat = method(curved, weights, images.reshape(B, 24), 1, features=QUADRANTS.ravel())
    np.testing.assert_allclose(flat.values.reshape(images.shape), every.values[:, 1], atol=1e-6)
    color = random.random((B, 2, 4, 3), np.float32)
    a = saliency.ShapleySampling(samples=2)(curved, weights, color, key=key, features=np.array([[0, 0, 1, 1]] * 2))
    np.testing.assert_allclose(a.delta, 0, atol=1e-5)
    assert (a.values == a.values[..., :1]).all()


def test_inside_a_program_features_are_constants(weights, images):
    method = saliency.Occlusion()
    compiled = jax.jit(lambda x: method(curved, weights, x, features=QUADRANTS).values)(images)
    np.testing.assert_allclose(compiled, method(curved, weights, images, features=QUADRANTS).values, atol=1e-6)
    with pytest.raises(UserError, match=r"features are an argument .* make them a constant"):
        jax.jit(lambda labels: method(curved, weights, images, features=labels).values)(QUADRANTS)


def test_features_that_do_not_fit_are_named(weights, images):
    with pytest.raises(UserError, match=r"features of shape \[4, 5\]: expected \[3, 4, 6\]"):
        saliency.Occlusion()(curved, weights, images, features=QUADRANTS[:, :5])
    with pytest.raises(UserError, match=r"AllClasses.*Gradient.* removes no features"):
        saliency.all_classes(saliency.Gradient())(curved, weights, images, features=QUADRANTS)
    for fields, words in (({"samples": 1}, "samples=1"), ({"grid": 0}, "grid=0")):
        with pytest.raises(UserError, match=words):
            saliency.ShapleySampling(**fields)


@pytest.mark.parametrize(("shape", "cells", "count"), [((2, 6, 9, 1), 3, 9), ((1, 2, 9, 3), 4, 8), ((2, 10), 4, 4)])
def test_cells_of_a_grid_are_rectangles_of_about_the_same_size(shape, cells, count):
    features = divide_into_cells(np.zeros(shape, np.float32), cells)
    assert features.count == count
    assert set(np.unique(features.labels)) == set(range(count))
    sizes = np.bincount(features.labels[0].ravel())
    assert sizes.max() <= 2 * sizes.min()


def test_superpixels_follow_the_colors_of_an_image():
    pytest.importorskip("skimage")
    images = np.zeros((2, 16, 24, 3), np.uint8)
    images[0, :, :11], images[1, :5] = (255, 0, 0), (0, 0, 255)
    labels = saliency.segment_images(images, 8)
    assert labels.shape == (2, 16, 24)
    for image, of_image in zip(images, labels, strict=True):
        assert 2 <= len(np.unique(of_image)) <= 16
        for name in np.unique(of_image):
            assert len(np.unique(image[of_image == name], axis=0)) == 1
    assert saliency.segment_images(np.zeros((1, 8, 8, 1), np.float32), 4).shape == (1, 8, 8)
    with pytest.raises(UserError, match="expected 1 or 3 channels"):
        saliency.segment_images(np.zeros((1, 8, 8, 2), np.float32))
