"""Batch normalization: equal to Flax's over a whole batch; groups, padding, and the statistics of evaluation."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxclf
from jaxclf.config import Config
from jaxclf.datasets import Arrays
from jaxclf.errors import UserError
from jaxclf.models.batch_norm import SUMS, BatchNorm, update_statistics
from jaxclf.models.examples import Examples, use_examples
from jaxclf.optimizers import Sgd


@pytest.fixture
def x(random):
    return jnp.asarray(3 + 2 * random.normal(size=(8, 4, 5, 3)), jnp.float32)


def normalize(x, model=None, **examples):
    model = model or BatchNorm()
    variables = model.init(jax.random.key(0), x, False)
    with use_examples(Examples(jnp.arange(len(x)), **examples)):
        y, changed = model.apply(variables, x, True, mutable=[SUMS])
    return y, update_statistics(variables, changed[SUMS])["batch_stats"]


def test_a_whole_batch_is_normalized_as_flax_does(x, random):
    weights = jnp.asarray(random.normal(size=x.shape), jnp.float32)
    # Its fast variance, the difference of two large numbers, is less exact than ours.
    theirs = nn.BatchNorm(use_running_average=False, momentum=0.9, use_fast_variance=False)
    variables = theirs.init(jax.random.key(0), x)
    expected, changed = theirs.apply(variables, x, mutable=["batch_stats"])
    y, statistics = normalize(x)
    np.testing.assert_allclose(y, expected, atol=2e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), statistics, changed["batch_stats"])
    slope = jax.grad(lambda x: (weights * normalize(x)[0]).sum())(x)
    wanted = jax.grad(lambda x: (weights * theirs.apply(variables, x, mutable=["batch_stats"])[0]).sum())(x)
    np.testing.assert_allclose(slope, wanted, atol=1e-5)


def test_derivatives_are_those_of_the_formula(random, monkeypatch):
    """Of groups with padding, by activations, scale and bias, of second order too; positions are added in a loop."""
    monkeypatch.setattr("jaxclf.xla.sums.CHUNK_SIZE", 64)
    mask = np.arange(8) != 5
    with jax.enable_x64(True):
        x, tangent, weights = (jnp.asarray(random.normal(size=(8, 4, 5, 3))) for _ in range(3))
        scale, bias = jnp.asarray([1.5, -1, 2]), jnp.asarray([0.1, 0.2, 0.3])
        statistics = {"mean": jnp.asarray([0.3, 0.1, -0.2]), "var": jnp.ones(3)}

        def normalize_simply(x, scale, bias):
            groups = x.reshape(2, 4, 20, 3)
            kept = mask.reshape(2, 4, 1, 1)
            count = 20 * kept.sum((1, 2), keepdims=True)
            mean = (kept * groups).sum((1, 2), keepdims=True) / count
            var = (kept * (groups - mean) ** 2).sum((1, 2), keepdims=True) / count
            scale, bias = (values.reshape(1, 1, 1, 3) for values in (scale, bias))
            return ((groups - mean) / jnp.sqrt(var + 1e-5) * scale + bias).reshape(x.shape)

        def normalize_groups(x, scale, bias):
            variables = {"params": {"scale": scale, "bias": bias}, "batch_stats": statistics}
            with use_examples(Examples(jnp.arange(8), mask=mask)):
                return BatchNorm(group=4, dtype="float64").apply(variables, x, True, mutable=[SUMS])[0]

        def derive(normalize):
            gradient = jax.grad(lambda *xs: jnp.sum(weights * jnp.sin(normalize(*xs))), (0, 1, 2))
            return gradient(x, scale, bias), jax.jvp(gradient, (x, scale, bias), (tangent, bias, scale))[1]

        found, expected = derive(normalize_groups), derive(normalize_simply)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10), found, expected)


def test_the_running_variance_is_the_biased_one_within_groups(x):
    _, statistics = normalize(x, BatchNorm(group=2, momentum=0.5))
    within = np.asarray(x, np.float64).reshape(4, 2 * 4 * 5, 3)
    np.testing.assert_allclose(statistics["mean"], 0.5 * within.mean((0, 1)), rtol=1e-5)
    np.testing.assert_allclose(statistics["var"], 0.5 + 0.5 * within.var(1).mean(0), rtol=1e-5)


def test_groups_are_normalized_one_by_one(x):
    y, _ = normalize(x, BatchNorm(group=4))
    np.testing.assert_allclose(y, np.concatenate([normalize(x[:4])[0], normalize(x[4:])[0]]), atol=1e-6)


def test_padding_is_not_counted_and_a_group_of_padding_is_finite(x):
    mask = jnp.arange(8) < 4
    spoiled = x.at[4:].set(1e6)
    for group in (None, 4):
        y, statistics = normalize(spoiled, BatchNorm(group), mask=mask)
        expected, wanted = normalize(x[:4])
        np.testing.assert_allclose(y[:4], expected, atol=1e-6)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), statistics, wanted)
        assert np.isfinite(y).all()
        slope = jax.grad(lambda x, group=group: normalize(x, BatchNorm(group), mask=mask)[0][:4].sum())(spoiled)
        assert np.isfinite(slope).all()


def test_a_large_mean_costs_no_digits(x):
    far = x + 1000
    y, _ = normalize(far)
    exact = np.asarray(far, np.float64)
    exact = (exact - exact.mean((0, 1, 2))) / np.sqrt(exact.var((0, 1, 2)) + 1e-5)
    np.testing.assert_allclose(y, exact, atol=1e-3)  # float32 keeps x itself to 6e-5


class Standardized(nn.Module):
    """Batch normalization of the pixels, then a linear layer."""

    norm: str = "ours"

    @nn.compact
    def __call__(self, images, train=False):
        x = images.reshape(images.shape[0], -1) / 255.0
        x = BatchNorm()(x, train) if self.norm == "ours" else nn.BatchNorm(use_running_average=not train)(x)
        return nn.Dense(10)(x)


def train_standardized(digits, norm="ours", **fields):
    config = Config(
        Arrays(digits.train.images, digits.train.labels), Standardized(norm), Sgd(learning_rate=0.1),
        epochs=1, batch_size=48, remainder="pad", **fields,
    )  # fmt: skip
    return jaxclf.fit(config).variables


def test_an_average_of_parameters_is_evaluated_with_precise_statistics(digits):
    pixels = digits.train.images.reshape(len(digits.train), -1) / 255.0
    found = train_standardized(digits, ema_decay=0.5)["batch_stats"]["BatchNorm_0"]
    np.testing.assert_allclose(found["mean"], pixels.mean(0), atol=1e-5)
    running = train_standardized(digits, ema_decay=0.5, batch_statistics="running")["batch_stats"]["BatchNorm_0"]
    assert np.abs(running["mean"] - pixels.mean(0)).max() > 0.05


def test_frozen_statistics_stay_and_are_used_in_training(digits):
    variables = train_standardized(digits, batch_statistics="frozen")
    np.testing.assert_array_equal(variables["batch_stats"]["BatchNorm_0"]["mean"], 0)
    np.testing.assert_array_equal(variables["batch_stats"]["BatchNorm_0"]["var"], 1)
    linear = train_standardized(digits, batch_statistics="running")
    assert np.abs(variables["params"]["Dense_0"]["kernel"] - linear["params"]["Dense_0"]["kernel"]).max() > 0.01


@pytest.mark.parametrize("statistics", ["precise", "frozen"])
def test_statistics_that_another_class_does_not_have_are_refused(statistics, digits):
    with pytest.raises(UserError, match=rf"batch_statistics={statistics} needs .*BatchNorm, and Standardized"):
        train_standardized(digits, norm="flax", batch_statistics=statistics)
