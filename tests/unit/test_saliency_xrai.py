"""XRAI: regions are whole, disjoint and found by greed; values keep each region's total; the host side says so."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage

from jaxclf import saliency
from jaxclf.errors import UserError
from jaxclf.saliency.methods.xrai import average_regions, segment_image, select_regions

SMALL = saliency.Xrai(steps=4, scales=(20.0, 50.0), side=48)


def rectangle(rows, columns, shape=(30, 40)):
    mask = np.zeros(shape, bool)
    mask[slice(*rows), slice(*columns)] = True
    return mask


@pytest.fixture
def attribution(random):
    return random.normal(size=(30, 40))


@pytest.fixture
def masks(random):
    """Twenty overlapping rectangles."""
    corners = random.integers(0, 25, (20, 2))
    return np.stack([rectangle((i, i + 9), (j, j + 12)) for i, j in corners])


def test_regions_are_disjoint_and_cover_the_image(attribution, masks):
    parts = select_regions(attribution, masks)
    assert (np.sum(parts, axis=0) == 1).all()
    assert all(part.any() for part in parts)


def test_each_region_is_the_most_that_any_segment_adds_for_a_pixel(attribution, masks):
    """The greedy choice, made anew for every region; what no segment covers comes last."""
    *parts, rest = select_regions(attribution, masks)
    left = np.ones(attribution.shape, bool)
    for part in parts:
        best = max(attribution[mask & left].mean() for mask in masks if (mask & left).any())
        np.testing.assert_allclose(attribution[part].mean(), best, rtol=1e-12)
        left &= ~part
    np.testing.assert_array_equal(left, rest)
    np.testing.assert_array_equal(rest, ~masks.any(axis=0))


def test_disjoint_segments_come_in_the_order_of_their_values(attribution):
    """PAIR saliency, core/xrai_test.py: one number a segment, not rising by rank, and the total kept."""
    two = np.stack([rectangle((1, 9), (1, 12)), rectangle((10, 20), (15, 30))])
    many = [rectangle((i, i + 10), (j, j + 10)) for i in (0, 10, 20) for j in (0, 10, 20, 30)]
    for masks in (two, np.stack(many)):
        parts = select_regions(attribution, masks)
        values = average_regions(attribution, parts)
        assert all(np.ptp(values[part]) == 0 for part in parts)
        means = [values[part][0] for part in parts[: len(masks)]]
        assert means == sorted(means, reverse=True)
        for part in parts:
            np.testing.assert_allclose(values[part].sum(), attribution[part].sum(), rtol=1e-12)


def test_segments_that_add_too_little_join_what_is_left():
    """Of 2,000 x 10 pixels the least region is 20."""
    attribution = np.ones((2000, 10))
    small = rectangle((0, 1), (0, 10), (2000, 10))
    large = rectangle((3, 6), (0, 10), (2000, 10))
    attribution[small], attribution[large] = 9, 5
    first, rest = select_regions(attribution, np.stack([small, large]))
    np.testing.assert_array_equal(first, large)
    np.testing.assert_array_equal(rest, ~large)


def test_segments_of_every_scale_reach_over_their_edges():
    """Black, the blurred edge of four columns, and white: each wider by 5 in 224, here two pixels a side."""
    image = np.zeros((112, 112, 3))
    image[:, 56:] = 1
    masks = segment_image(skimage, image, (1e5, 1e5), 112)
    edges = [(0, 54 + 2), (54 - 2, 58 + 2), (58 - 2, 112)]
    expected = [rectangle((0, 112), columns, (112, 112)) for columns in edges]
    np.testing.assert_array_equal(masks, expected + expected)


@pytest.mark.parametrize("value", [0.0, 0.3, np.nan])
def test_an_image_without_contrast_is_one_segment(value):
    masks = segment_image(skimage, np.full((10, 12, 1), value), (50.0,), 48)
    assert masks.shape == (1, 10, 12)
    assert masks.all()


def picture(random):
    """Two images with a bright square on noise, and a model of three classes."""
    images = random.uniform(0, 0.3, size=(2, 16, 20, 3)).astype(np.float32)
    images[0, 2:9, 3:10] += 0.6
    images[1, 6:14, 8:18] += 0.5
    weights = random.normal(size=(16, 20, 3, 3)).astype(np.float32) / 10

    def model(weights, images):
        return jnp.tanh(jnp.einsum("bhwc,hwck->bk", images, weights, precision="highest"))

    return model, weights, images


def test_values_are_the_regions_means_of_integrated_gradients_from_black_and_white(random):
    model, weights, images = picture(random)
    a = SMALL(model, weights, images, 1)
    both = [saliency.IntegratedGradients(4)(model, weights, images, 1, baseline=x) for x in (0.0, 1.0)]
    pixels = np.mean([each.values for each in both], axis=0).max(axis=3)
    assert a.values.shape == (2, 16, 20, 1)
    np.testing.assert_allclose(a.values.sum(axis=(1, 2, 3)), pixels.sum(axis=(1, 2)), rtol=1e-4)
    for values, own, image in zip(np.asarray(a.values)[..., 0], pixels, images, strict=True):
        parts = select_regions(own, segment_image(skimage, image.astype(np.float64), SMALL.scales, SMALL.side))
        assert len(parts) > 2
        np.testing.assert_allclose(values, average_regions(own, parts), atol=1e-6)
    np.testing.assert_array_equal(a.score, both[0].score)
    np.testing.assert_array_equal(a.evaluations, 2 * (4 + 2))
    assert a.delta is None


def test_a_baseline_that_is_given_is_the_only_one(random):
    model, weights, images = picture(random)
    a = SMALL(model, weights, images, baseline=0.5)
    pixels = saliency.IntegratedGradients(4)(model, weights, images, baseline=0.5).values.max(axis=3)
    np.testing.assert_allclose(a.values.sum(axis=(1, 2, 3)), pixels.sum(axis=(1, 2)), rtol=1e-4)
    np.testing.assert_array_equal(a.evaluations, 4 + 2)


@pytest.mark.parametrize("wrapper", [saliency.all_classes, lambda method: saliency.SmoothGrad(method, samples=2)])
def test_it_is_no_part_of_a_compiled_program(random, wrapper):
    model, weights, images = picture(random)
    with pytest.raises(UserError, match="works on the host: call it by itself"):
        wrapper(SMALL)(model, weights, images, key=jax.random.key(0))


def test_flat_images_have_no_regions():
    with pytest.raises(UserError, match=r"images of shape \[2, 9\]: expected \[b, h, w, c\]"):
        SMALL(lambda _, x: x, {}, np.ones((2, 9), np.float32))


def test_without_scikit_image_the_error_names_the_extra(random, monkeypatch):
    model, weights, images = picture(random)
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(UserError, match=r"pip install 'jaxclf\[xrai\]'"):
        SMALL(model, weights, images)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"steps": 0}, "steps=0: expected at least 1"),
        ({"scales": ()}, r"scales=\(\): expected at least one"),
        ({"side": 1}, "side=1: expected at least 2"),
    ],
)
def test_fields_that_cut_nothing_are_refused(fields, words):
    with pytest.raises(UserError, match=words):
        saliency.Xrai(**fields)
