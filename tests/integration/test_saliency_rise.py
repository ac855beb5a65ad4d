"""RISE: masks of known mean and covariance, and values of known expectation on a linear model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclf import saliency
from jaxclf.errors import UserError
from jaxclf.saliency.methods.rise import sample_mask

SIZES, GRID, SHARE = (7, 5), 3, 0.4
CELLS = (3, 2)  # pixels of a cell: the sides divided by the grid, rounded up


def enlarged(size, cell, shift):
    """Weights [size, GRID] of the cells, by linear interpolation of each cell's own grid."""
    centres = (np.arange(size) + shift + 0.5) * GRID / ((GRID + 1) * cell) - 0.5
    return np.stack([np.interp(centres, np.arange(GRID), one) for one in np.eye(GRID)], axis=1)


def covariance(shifts):
    """Of the masks' pixels [35, 35], where each axis is moved by one of these shifts."""
    own = [
        np.mean([enlarged(n, cell, k) @ enlarged(n, cell, k).T for k in ks], axis=0)
        for n, cell, ks in zip(SIZES, CELLS, shifts, strict=True)
    ]
    return SHARE * (1 - SHARE) * np.kron(*own)


EVERY_SHIFT = covariance([range(3), range(2)])


@pytest.fixture(scope="module")
def masks():
    keys = jax.random.split(jax.random.key(0), 6000)
    return np.asarray(jax.vmap(lambda key: sample_mask(key, SIZES, GRID, SHARE))(keys), np.float64).reshape(6000, -1)


def test_every_pixel_is_seen_equally_often(masks):
    """No bias at the edges: the mean mask is the probability everywhere, within five standard errors of 35 pixels."""
    errors = np.abs(masks.mean(axis=0) - SHARE) / (masks.std(axis=0) / np.sqrt(len(masks)))
    assert errors.max() < 5
    assert masks.min() >= 0
    assert masks.max() <= 1 + 1e-6


def test_each_mask_is_moved_by_itself(masks):
    """A peer moves all masks of a batch alike: their covariance would be that of one shift, and not of all."""

    def worst(expected):
        products = (masks - SHARE)[:, :, None] * (masks - SHARE)[:, None, :]
        return (np.abs(products.mean(axis=0) - expected) / (products.std(axis=0) / np.sqrt(len(masks)))).max()

    assert worst(EVERY_SHIFT) < 5
    assert all(worst(covariance([[i], [j]])) > 10 for i in range(3) for j in range(2))


def test_values_of_a_linear_model_are_their_expectation_within_four_standard_errors(random):
    """E[f(m x) m_i] / p = sum_j w_j x_j (cov_ij + p^2) / p; standard errors are those seen over examples."""
    image = random.uniform(size=(*SIZES, 1)).astype(np.float32)
    weights = random.normal(size=image.shape).astype(np.float32)

    def linear(weights, images):
        return jnp.einsum("bhwc,hwc->b", images, weights, precision="highest")[:, None]

    samples, b = 600, 256  # so that the standard deviation over examples is known to 4 %
    method = saliency.Rise(samples=samples, grid=GRID, probability=SHARE)
    a = method(linear, weights, np.stack([image] * b), key=jax.random.key(1))
    expected = (EVERY_SHIFT + SHARE**2) @ (weights * image).ravel() / SHARE
    values, stderr = np.asarray(a.values).reshape(b, -1), np.asarray(a.stderr).reshape(b, -1)
    assert (np.abs(values - expected) < 5.5 * stderr).all()  # the largest of 1,536
    assert (np.abs(values.mean(axis=0) - expected) < 4 * stderr.mean(axis=0) / np.sqrt(b)).all()
    np.testing.assert_allclose(values.std(axis=0, ddof=1).mean(), stderr.mean(), rtol=0.2)
    assert (a.evaluations == samples + 1).all()


def test_each_example_has_its_own_masks_by_its_own_key():
    images = np.ones((3, 6), np.float32)
    method = saliency.Rise(samples=3, grid=2)
    key = jax.random.key(0)

    def model(variables, images):
        return images @ variables

    apart = method(model, jnp.ones((6, 1)), images, key=key).values
    assert not np.allclose(apart[0], apart[1])
    alike = method(model, jnp.ones((6, 1)), images, key=jnp.stack([key] * 3)).values
    np.testing.assert_array_equal(alike[0], alike[1])


def test_hidden_pixels_are_the_baseline_and_channels_share_the_mask(random):
    """At the baseline masks change nothing: a pixel's value is the score times its mean mask over p."""
    images = random.uniform(size=(2, 6, 4, 3)).astype(np.float32)
    a = saliency.Rise(samples=500)(
        lambda _, x: x.sum(axis=(1, 2, 3))[:, None], {}, images, key=jax.random.key(2), baseline=images
    )
    assert (np.ptp(a.values, axis=3) == 0).all()
    # 48 values within five of the standard errors they come with, which 500 samples make small.
    score, stderr = np.asarray(a.score)[:, None, None, None], np.asarray(a.stderr)
    assert (np.abs(a.values - score) < 5 * stderr).all()
    assert (stderr > 0).all() and (stderr < 0.1 * score).all()


def test_all_seen_is_the_score_everywhere(random):
    images = random.uniform(size=(2, 6, 4, 1)).astype(np.float32)
    a = saliency.Rise(samples=2, probability=1.0)(lambda _, x: x.sum(axis=(1, 2)), {}, images, key=jax.random.key(2))
    np.testing.assert_allclose(
        a.values, np.broadcast_to(np.asarray(a.score)[:, None, None, None], images.shape), rtol=1e-6
    )
    np.testing.assert_allclose(a.stderr, 0, atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"samples": 1}, "samples=1: expected at least 2"),
        ({"grid": 1}, "grid=1: expected at least 2"),
        ({"probability": 0.0}, "probability=0.0: expected more than 0"),
    ],
)
def test_masks_that_tell_nothing_are_refused(fields, words):
    with pytest.raises(UserError, match=words):
        saliency.Rise(**fields)
