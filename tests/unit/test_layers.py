"""Layers that are written differently from the plain ones agree with them, derivatives included."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclf.models.dropout import Dropout
from jaxclf.models.examples import Examples, use_examples
from jaxclf.models.layers import MaxPool


def plain(window, stride=None, padding=0):
    sizes = (window, window), (stride or window,) * 2, ((padding, padding),) * 2
    return lambda x: nn.max_pool(x, *sizes)


def ours(*sizes):
    return lambda x: MaxPool(*sizes).apply({}, x)


@pytest.fixture(params=[(2, 6, 4, 3), (1, 5, 7, 2)], ids=str)
def x(request):
    # Few distinct values, so that windows have equal maxima: what a ReLU before the pooling makes all the time.
    return jnp.asarray(np.random.default_rng(0).integers(-1, 2, request.param), jnp.float32)


@pytest.fixture
def tangent(x, random):
    return jnp.asarray(random.normal(size=x.shape), jnp.float32)


def score(pool, x):
    y = pool(x)
    return jnp.sum(jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape) * y**2)


@pytest.mark.parametrize("window", [(1,), (2,), (3,), (3, 2, 1)], ids=str)
@pytest.mark.parametrize(
    "derive",
    [
        lambda pool, x, t: pool(x),
        lambda pool, x, t: jax.jvp(pool, (x,), (t,)),
        lambda pool, x, t: jax.grad(partial(score, pool))(x),
        lambda pool, x, t: jax.jvp(jax.grad(partial(score, pool)), (x,), (t,)),
    ],
    ids=["forward", "jvp", "gradient", "gradient of gradient"],
)
def test_max_pool_equals_the_plain_one(derive, window, x, tangent):
    a, b = (jax.jit(partial(derive, pool(*window)))(x, tangent) for pool in (ours, plain))
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-6), a, b)


@pytest.mark.parametrize("place", [(0, 0), (0, 1), (1, 0), (1, 1)], ids=str)
def test_a_nan_is_not_pooled_away(place):
    x = jnp.ones((1, 2, 2, 1)).at[0, *place, 0].set(jnp.nan)
    value, _ = jax.value_and_grad(lambda x: ours(2)(x).sum())(x)
    assert np.isnan(value) and np.isnan(ours(2)(x)).all()


def drop(key, x, rate=0.5):
    return Dropout(rate).apply({}, x, True, rngs={"dropout": key})


def test_dropout_keeps_the_expectation_and_the_share():
    x = jnp.ones((200, 500))
    y = drop(jax.random.key(0), x, rate=0.2)
    assert set(np.unique(y).tolist()) == {0.0, 1.25}
    assert np.mean(y == 0) == pytest.approx(0.2, abs=4 * np.sqrt(0.2 * 0.8 / x.size))


def test_a_mask_follows_the_position_of_its_example():
    key, x = jax.random.key(0), jnp.ones((8, 50))
    whole = drop(key, x)
    for part in (slice(0, 4), slice(4, 8), slice(2, 3)):
        with use_examples(Examples(jnp.arange(8)[part])):
            np.testing.assert_array_equal(drop(key, x[part]), whole[part])


def test_masks_of_examples_differ():
    whole = np.asarray(drop(jax.random.key(0), jnp.ones((8, 50))))
    assert len({row.tobytes() for row in whole}) == 8


def test_dropout_does_nothing_outside_training():
    x = jnp.ones((2, 3))
    np.testing.assert_array_equal(Dropout(0.9).apply({}, x, False), x)
