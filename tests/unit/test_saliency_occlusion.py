"""Occlusion: a linear model in closed form, any windows against a loop over pixels, and a peer's numbers."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclf import saliency
from jaxclf.errors import UserError


def linear(weights, images):
    """One class, by the weights of all pixels."""
    return jnp.einsum("b...,...->b", images, weights, precision="highest")[:, None]


def curved(weights, images):
    """A class whose pixels work together."""
    return jnp.tanh(linear(weights, images)) + linear(weights, images**2)


def looped(weights, images, baseline, window, stride, aggregate):
    """Window after window, pixel after pixel."""
    axes = images.shape[1:-1] if images.ndim > 2 else images.shape[1:]
    starts = []
    for size, side, step in zip(axes, window, stride, strict=True):
        along = [0]
        while along[-1] + side < size:
            along.append(along[-1] + step)
        starts.append(along)
    score = np.asarray(curved(weights, images))[:, 0]
    total, count = np.zeros((len(images), *axes)), np.zeros(axes)
    for corner in itertools.product(*starts):
        place = tuple(slice(start, start + side) for start, side in zip(corner, window, strict=True))
        hidden = images.copy()
        hidden[:, *place] = baseline[:, *place]
        drop = score - np.asarray(curved(weights, hidden))[:, 0]
        total[:, *place] += drop.reshape(-1, *[1] * len(axes))
        count[place] += 1
    assert count.all()
    values = total / count if aggregate == "mean" else total
    return np.broadcast_to(values[..., None], images.shape) if images.ndim > 2 else values


@pytest.mark.parametrize("aggregate", ["sum", "mean"])
@pytest.mark.parametrize(
    ("shape", "window", "stride"),
    [
        ((7, 9, 2), (3, 3), (1, 1)),  # overlapping
        ((7, 9, 2), (3, 4), (2, 4)),  # cut in height and in width, each axis its own
        ((4, 5, 1), (9, 2), (9, 1)),  # larger than the image
        ((11,), (4,), (3,)),  # flat
        ((6, 3), (4,), (1,)),  # one axis, and channels
        ((3, 4, 5, 2), (2, 3, 2), (1, 2, 2)),  # a volume
    ],
)
def test_windows_agree_with_a_loop_over_them(random, shape, window, stride, aggregate):
    images, baseline = random.uniform(size=(2, 3, *shape)).astype(np.float32)
    weights = random.normal(size=shape).astype(np.float32)
    method = saliency.Occlusion(window, stride, aggregate)
    a = method(curved, weights, images, baseline=baseline)
    expected = looped(weights, images, baseline, window, stride, aggregate)
    np.testing.assert_allclose(a.values, expected, atol=2e-6 * np.abs(expected).max() * np.prod(window))


def test_disjoint_windows_of_a_linear_model_hold_their_share_of_the_score(random):
    """Each window's value is w·(x - x0) summed over it; divided among its pixels, the values sum to the gain."""
    images = random.uniform(size=(3, 6, 8, 2)).astype(np.float32)
    weights = random.normal(size=(6, 8, 2)).astype(np.float32)
    a = saliency.Occlusion((2, 4), (2, 4))(linear, weights, images, baseline=0.25)
    shares = (weights * (images - 0.25)).reshape(3, 3, 2, 2, 4, 2).sum(axis=(2, 4, 5))
    expected = shares.repeat(2, axis=1).repeat(4, axis=2)[..., None]
    np.testing.assert_allclose(a.values, np.broadcast_to(expected, images.shape), atol=1e-5)
    gain = np.asarray(linear(weights, images) - linear(weights, np.full_like(images, 0.25)))[:, 0]
    np.testing.assert_allclose(a.values.sum(axis=(1, 2, 3)) / (2 * 4 * 2), gain, atol=1e-5)


def test_the_example_of_a_peer():
    """PAIR saliency, core/occlusion_test.py: three times the sum of 5x5 pixels, two of them lit, windows of 3x3."""
    image = np.zeros((1, 5, 5, 1), np.float32)
    image[0, 1, 1] = image[0, 3, 3] = 1
    a = saliency.Occlusion(window=3, stride=1)(linear, np.full((5, 5, 1), 3, np.float32), image)
    expected = [[3, 6, 6, 3, 0], [6, 15, 18, 12, 3], [6, 18, 24, 18, 6], [3, 12, 18, 15, 6], [0, 3, 6, 6, 3]]
    np.testing.assert_allclose(a.values[0, ..., 0], expected, atol=1e-5)
    assert a.evaluations == 9 + 1


def test_at_the_baseline_nothing_is_lost(random):
    images = random.uniform(size=(2, 5, 5, 1)).astype(np.float32)
    a = saliency.Occlusion(2, 1)(curved, np.ones((5, 5, 1), np.float32), images, baseline=images)
    np.testing.assert_allclose(a.values, 0, atol=1e-6 * float(a.score.max()))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"window": 2, "stride": 3}, "stride=3: expected 1 to window=2"),
        ({"window": (4, 2), "stride": 3}, r"stride=3: expected 1 to window=\(4, 2\)"),
        ({"window": 2, "stride": 0}, "stride=0: expected 1"),
        ({"window": 0, "stride": 1}, "window=0: expected at least 1"),
        ({"window": (2, 2), "stride": (1, 1, 1)}, "expected 3 of each"),
    ],
)
def test_windows_that_leave_pixels_out_are_refused(fields, words):
    with pytest.raises(UserError, match=words):
        saliency.Occlusion(**fields)


def test_windows_of_other_axes_than_the_images_are_refused():
    """Also where one side is for all axes."""
    for sides in (((2, 2), 1), (2, (1, 1))):
        with pytest.raises(UserError, match="expected 1 of each"):
            saliency.Occlusion(*sides)(linear, jnp.ones(9), np.ones((2, 9), np.float32))


def test_all_windows_need_no_more_memory_than_a_few():
    """No table of windows and pixels: of 4,096 windows it would have 67 MB."""
    method = saliency.Occlusion(1, 1, max_rows=16)
    images = jax.ShapeDtypeStruct((1, 64, 64, 1), jnp.float32)
    weights = jax.ShapeDtypeStruct((64, 64, 1), jnp.float32)
    compiled = jax.jit(method, static_argnums=0).lower(linear, weights, images).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 2e6
