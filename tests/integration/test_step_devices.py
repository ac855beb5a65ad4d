"""A step on four devices, by jit and pmap, in parts and several at once, is the step on one."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from support.steps import STEP_CONFIG, STEPS, add_weights, assert_same, fit, make_devices, read_batches

from jaxclf.augment import Mixup
from jaxclf.optimizers import Adam, Muon
from jaxclf.training.state import summarize

EVERYTHING = replace(
    STEP_CONFIG,
    transformation=Adam(learning_rate=1e-3).build(STEPS),
    ema_decay=0.9,
    mixup=Mixup(alpha=0.5),
    class_weights=tuple(np.linspace(0.5, 2, 10).tolist()),
)
GROUPED = replace(
    STEP_CONFIG,
    transformation=Muon(learning_rate=1e-3, freeze=("conv1",), layer_decay=0.75, clip_norm=1.0).build(
        STEPS, model=STEP_CONFIG.model
    ),
)


@pytest.fixture(scope="module")
def batches(digits):
    return read_batches(digits)


@pytest.fixture(scope="module")
def weighted_batches(batches):
    return add_weights(batches, np.random.default_rng(0))


@pytest.fixture(scope="module")
def alone(batches):
    return fit(STEP_CONFIG, batches)


@pytest.fixture(scope="module")
def everything_alone(weighted_batches):
    return fit(EVERYTHING, weighted_batches)


@pytest.mark.parametrize(("count", "parallel", "parts"), [(4, "jit", 1), (4, "pmap", 1), (1, "jit", 2), (4, "jit", 2)])
def test_adam_ema_mixup_class_and_sample_weights_are_those_of_one_device(
    count, parallel, parts, weighted_batches, everything_alone
):
    found = fit(replace(EVERYTHING, gradient_accumulation=parts), weighted_batches, make_devices(count, parallel))
    assert_same((found.params, found.ema), (everything_alone.params, everything_alone.ema))
    assert_same(summarize(EVERYTHING, found.epoch_stats), summarize(EVERYTHING, everything_alone.epoch_stats))


def test_groups_of_parameters_are_those_of_one_device(batches):
    one = fit(GROUPED, batches)
    for count, parallel, parts in ((4, "jit", 1), (4, "pmap", 1), (1, "jit", 2)):
        found = fit(replace(GROUPED, gradient_accumulation=parts), batches, make_devices(count, parallel))
        assert_same(found.params, one.params)
        assert jax.tree.structure(found.optimizer_state) == jax.tree.structure(one.optimizer_state)


@pytest.mark.parametrize("parts", [1, 2])
def test_pmap_gives_the_parameters_of_one_device(parts, batches, alone):
    many = fit(replace(STEP_CONFIG, gradient_accumulation=parts), batches, make_devices(4, "pmap"))
    assert_same(many.params, alone.params)


@pytest.mark.parametrize("parallel", ["jit", "pmap"])
def test_steps_together_are_the_steps_one_by_one(parallel, batches, alone):
    """With what counts being less than what comes at the end, on one device and on four."""
    for on in (make_devices(1, parallel), make_devices(4, parallel)):
        state = on.create_state(STEP_CONFIG, batches[0])
        steps = on.compile_train_step(STEP_CONFIG, state, batches[0], together=4)
        for start in range(0, STEPS, 4):
            some = [batches[min(start + i, STEPS - 1)] for i in range(4)]
            state = steps(state, jax.tree.map(lambda *x: np.stack(x), *some), min(4, STEPS - start))
        assert int(state.step) == STEPS
        assert_same(jax.device_get(state).params, alone.params)
        assert_same(jax.device_get(state).epoch_stats, alone.epoch_stats, atol=1e-3)
