"""Sampled methods: their expectations in closed form within four standard errors, their keys and their error bars."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclf import saliency
from jaxclf.errors import UserError
from jaxclf.saliency.sampling import Moments

KEY = jax.random.key(7)
N = 5


def quadratic(variables, images):
    """x'Ax / 2, whose gradient is Ax."""
    return 0.5 * jnp.sum(images @ variables * images, axis=1, keepdims=True)


@pytest.fixture
def matrix(random):
    half = random.normal(size=(N, N))
    return np.float32(half + half.T)


@pytest.fixture
def images(random):
    return np.float32(random.normal(size=(3, N)))


def within_errors(a, expected):
    """Within four standard errors everywhere, and not because they are large."""
    assert (np.abs(a.values - expected) <= 4 * a.stderr + 1e-6).all()
    assert a.stderr.max() < 0.2 * np.abs(expected).max()


def test_noise_on_a_quadratic(matrix, images):
    """SmoothGrad is Ax, VarGrad of pixel i is s^2 sum_j A_ij^2, and SmoothGrad squared (Ax)_i^2 plus that."""
    settings = {"samples": 4_000, "noise": 0.5, "noise_scale": "absolute"}
    smooth, variance, squared = (
        method(**settings)(quadratic, matrix, images, key=KEY)
        for method in (saliency.SmoothGrad, saliency.VarGrad, saliency.SmoothGradSquared)
    )
    spread = np.broadcast_to(0.25 * np.sum(matrix**2, axis=1), images.shape)
    within_errors(smooth, images @ matrix)
    within_errors(variance, spread)
    within_errors(squared, (images @ matrix) ** 2 + spread)


@pytest.mark.parametrize("noise_scale", ["absolute", "range"])
def test_a_smoothed_relu_is_a_normal_distribution_function(noise_scale):
    """The mean slope of relu(x + noise) is Phi(x / s)."""
    images = np.float32([[-1.0, 0.3, 2.0]])
    s = 0.4 if noise_scale == "absolute" else 0.4 * 3.0
    method = saliency.SmoothGrad(samples=5_000, noise=0.4, noise_scale=noise_scale)
    a = method(lambda variables, images: jax.nn.relu(images).sum(axis=1, keepdims=True), {}, images, key=KEY)
    within_errors(a, jax.scipy.stats.norm.cdf(images / s))


def test_error_bars_hold_what_they_say(matrix, images):
    """Over many keys the errors, in standard errors, have a standard deviation of 1: of means and of variances.

    Over seeds 1.037 ± 0.018 for SmoothGrad (Student's t: 1.036), 1.022 ± 0.021 for VarGrad (n = 100).
    """
    keys = jax.random.split(KEY, 400)
    many = np.repeat(images[:1], 400, axis=0)
    spread = 0.25 * np.sum(matrix**2, axis=1)
    for method, expected in (
        (saliency.SmoothGrad(samples=30, noise=0.5, noise_scale="absolute"), images[0] @ matrix),
        (saliency.VarGrad(samples=400, noise=0.5, noise_scale="absolute"), spread),
    ):
        a = method(quadratic, matrix, many, key=keys)
        assert np.std((a.values - expected[None]) / a.stderr) == pytest.approx(1, abs=0.12)


def test_every_wrapper_draws_the_same_noise(matrix, images):
    """So the variance is that of the same samples: n / (n - 1) (mean of squares - square of mean)."""
    smooth, squared, variance = (
        method(samples=6, noise=0.5)(quadratic, matrix, images, key=KEY).values
        for method in (saliency.SmoothGrad, saliency.SmoothGradSquared, saliency.VarGrad)
    )
    np.testing.assert_allclose(variance, 6 / 5 * (squared - smooth**2), rtol=1e-3)


def test_one_key_is_folded_with_the_row_and_each_row_draws_its_own(matrix, images):
    method = saliency.SmoothGrad(samples=2)
    same = np.repeat(images[:1], 3, axis=0)
    folded = jax.vmap(lambda row: jax.random.fold_in(KEY, row))(np.arange(3))
    a, b = (method(quadratic, matrix, same, key=key).values for key in (KEY, folded))
    np.testing.assert_array_equal(a, b)
    assert np.abs(a[0] - a[1]).max() > 0
    raw = method(quadratic, matrix, same, key=jax.random.key_data(KEY)).values
    np.testing.assert_array_equal(a, raw)
    with pytest.raises(UserError, match=r"keys of shape \[2\]: expected one, or \[3\]"):
        method(quadratic, matrix, same, key=folded[:2])


def test_without_noise_it_is_the_method_itself(matrix, images):
    a = saliency.SmoothGrad(samples=1, noise=0.0)(quadratic, matrix, images, key=KEY)
    np.testing.assert_array_equal(a.values, saliency.Gradient()(quadratic, matrix, images).values)
    np.testing.assert_array_equal(a.evaluations, 2)
    assert np.isnan(a.stderr).all()


def test_the_variance_of_nearly_equal_samples_does_not_cancel(matrix, images):
    """E[g^2] - E[g]^2 in float32, as others write it, is negative for some of these."""
    matrix = 1e4 * np.eye(N, dtype=np.float32)
    method = saliency.VarGrad(samples=50, noise=1e-3, noise_scale="absolute")
    a = method(quadratic, matrix, images + 1, key=KEY)
    np.testing.assert_allclose(a.values, 100, rtol=1.0)
    assert (a.values > 10).all()


def test_antithetic_noise_is_exact_where_the_gradient_is_linear(matrix, images):
    a = saliency.SmoothGrad(samples=4, noise=0.5, antithetic=True)(quadratic, matrix, images, key=KEY)
    np.testing.assert_allclose(a.values, images @ matrix, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(a.stderr, 0, atol=1e-5)
    with pytest.raises(UserError, match="samples=5: antithetic noise needs an even number of samples; try 6"):
        saliency.VarGrad(samples=5, antithetic=True)


def test_settings_out_of_range_are_named():
    with pytest.raises(UserError, match="samples=1: expected at least 2"):
        saliency.VarGrad(samples=1)
    with pytest.raises(UserError, match="noise=-1"):
        saliency.SmoothGrad(noise=-1.0)


def test_a_wrapped_method_keeps_its_score_rows_and_class(matrix, images):
    """The class explained is the one predicted for the clean image, however the noise changes that."""

    def two(variables, images):
        margin = images[:, :1] - 0.01
        return jnp.concatenate([margin, -margin], axis=1)

    method = saliency.SmoothGrad(saliency.Gradient(score="margin", max_rows=4), samples=20, noise=5.0)
    assert (method.score, method.max_rows) == ("margin", 4)
    a = method(two, {}, images, key=KEY)
    np.testing.assert_allclose(a.values[:, 0], np.where(images[:, 0] > 0.01, 2, -2))
    np.testing.assert_array_equal(a.evaluations, 21)


def test_moments_merge_as_numpy_counts_them(random):
    samples = random.gamma(2.0, size=(37, 4)).astype(np.float32)
    parts = [Moments.from_samples(part) for part in np.split(samples, [5, 6, 20])]
    merged = parts[0]
    for part in parts[1:]:
        merged = merged.merge(part)
    zeros = jax.tree.map(jnp.zeros_like, merged)
    for moments in (merged, zeros.merge(merged), merged.merge(zeros)):
        distances = samples.astype(np.float64) - samples.mean(axis=0)
        np.testing.assert_allclose(moments.mean, samples.mean(axis=0), rtol=1e-5)
        np.testing.assert_allclose(moments.variance, np.var(samples, axis=0, ddof=1), rtol=1e-5)
        np.testing.assert_allclose(moments.third, np.sum(distances**3, axis=0), rtol=1e-4)
        np.testing.assert_allclose(moments.fourth, np.sum(distances**4, axis=0), rtol=1e-4)


@pytest.mark.parametrize("k", [1, 4, 9])
def test_expected_gradients_of_a_quadratic(k, matrix, images, random):
    """Each x0 adds (x - x0) * A(x + x0) / 2; the sum is the score minus its mean over the references."""
    references = np.float32(random.normal(size=(k, N)))
    a = saliency.ExpectedGradients(samples=3_600)(quadratic, matrix, images, key=KEY, baseline=references)
    pairs = (images[:, None] - references) * ((images[:, None] + references) @ matrix) / 2
    within_errors(a, pairs.mean(axis=1))
    np.testing.assert_allclose(a.delta, 0, atol=4 * np.sqrt(np.sum(a.stderr**2, axis=1)).max())
    np.testing.assert_array_equal(a.evaluations, 3_600 + 1 + k)


def test_of_a_linear_score_every_reference_counts_as_often(random):
    """So its expected gradients are w (x - mean of the references), however few the rounds."""
    w, references = np.float32(random.normal(size=(N, 1))), np.float32(random.normal(size=(4, N)))
    images = np.float32(random.normal(size=(3, N)))
    a = saliency.ExpectedGradients(samples=8)(lambda w, images: images @ w + 1, w, images, key=KEY, baseline=references)
    np.testing.assert_allclose(a.values, (images - references.mean(axis=0)) * w[:, 0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(a.delta, 0, atol=1e-4)
