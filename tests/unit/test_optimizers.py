"""Schedules at their corners, optimisers on a quadratic and against optax written out."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support.components import OPTIMIZERS, SCHEDULES

from jaxclf.errors import UserError
from jaxclf.optimizers import Adam, OneCycle, Sgd, WarmupCosine

CORNERS = [
    {0: 0.5, 100: 0.5},
    {0: 0.0, 10: 0.5, 55: 0.5 * (1 + 0.2) / 2, 100: 0.1},
    {0: 0.5, 50: 0.25, 100: 0.0},
    {0: 0.02, 30: 0.5, 100: 2e-6},
]


def descend(optimizer, steps=200, start=(3.0, -2.0)):
    """Minimise x² + 4y² from `start`."""
    transformation = optimizer.build(steps)
    x = jnp.asarray(start)
    state = transformation.init(x)
    for _ in range(steps):
        updates, state = transformation.update(jnp.array([2.0, 8.0]) * x, state, x)
        x = optax.apply_updates(x, updates)
    return x


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
def test_a_quadratic_is_minimised(optimizer):
    np.testing.assert_allclose(descend(optimizer), 0, atol=0.02)


@pytest.mark.parametrize(("schedule", "corners"), list(zip(SCHEDULES, CORNERS, strict=True)))
def test_a_schedule_at_its_corners(schedule, corners):
    rates = Sgd(learning_rate=0.5, schedule=schedule).learning_rates(100)
    for step, rate in corners.items():
        assert float(rates(step)) == pytest.approx(rate, rel=1e-4, abs=1e-8)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: WarmupCosine(warmup=1.5), "warmup=1.5"),
        (lambda: OneCycle(peak_at=0.0), "peak_at=0.0"),
        (lambda: OneCycle(final=0.0), "start and final"),
        (lambda: Sgd(learning_rate=float("nan")), "learning_rate=nan"),
        (lambda: Sgd(learning_rate=0.1, nesterov=True), "set momentum"),
        (lambda: Adam(learning_rate=0.1, beta2=1.0), "beta2=1.0"),
        (lambda: Adam(learning_rate=0.1, clip_norm=0.0), "clip_norm=0.0"),
    ],
)
def test_what_is_out_of_its_range_is_refused(build, message):
    with pytest.raises(UserError, match=message):
        build()


def test_a_long_warm_up_of_a_short_run_still_builds():
    assert Sgd(learning_rate=0.1, schedule=WarmupCosine(warmup=0.99)).learning_rates(10)(9) == pytest.approx(0.1)


def test_clipping_bounds_the_global_norm():
    gradients = {"a": jnp.array([30.0]), "b": jnp.array([40.0])}
    transformation = Sgd(learning_rate=1.0, clip_norm=5.0).build(1)
    updates, _ = transformation.update(gradients, transformation.init(gradients), gradients)
    np.testing.assert_allclose(jnp.concatenate(jax.tree.leaves(updates)), [-3.0, -4.0], rtol=1e-6)


def test_weight_decay_is_decoupled_from_the_gradient():
    # With no gradient a decoupled step is exactly -learning_rate · weight_decay · weight.
    weights = jnp.array([2.0])
    transformation = Adam(learning_rate=0.1, weight_decay=0.5).build(1)
    updates, _ = transformation.update(jnp.zeros(1), transformation.init(weights), weights)
    np.testing.assert_allclose(updates, [-0.1])


def test_the_first_adam_step_is_the_learning_rate():
    transformation = Adam(learning_rate=0.01).build(1)
    updates, _ = transformation.update(jnp.array([1e-3, -5.0]), transformation.init(jnp.zeros(2)), jnp.zeros(2))
    np.testing.assert_allclose(updates, [-0.01, 0.01], rtol=1e-3)
