"""Schedules at their corners, optimizers on a quadratic, and against their formulas and the numbers of PyTorch."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support.components import OPTIMIZERS, SCHEDULES
from support.networks import Declared

from jaxclf.config_io import from_json, to_json
from jaxclf.errors import UserError
from jaxclf.models import Mlp
from jaxclf.optimizers import Adam, AdamW, Lamb, Lion, Muon, OneCycle, Sgd, WarmupCosine, WarmupLinear

TORCH = json.loads((Path(__file__).parents[1] / "fixtures/torch_optimizers.json").read_text())
MODEL = Mlp(features=(2, 2), classes=2)  # its layers are dense1, dense2 and logits

CORNERS = [
    {0: 0.5, 100: 0.5},
    {0: 0.0, 10: 0.5, 55: 0.5 * (1 + 0.2) / 2, 100: 0.1},
    {0: 0.5, 50: 0.25, 100: 0.0},
    {0: 0.02, 30: 0.5, 100: 2e-6},
    {0: 0.0, 5: 0.25, 10: 0.5, 55: 0.3, 100: 0.1},
    {0: 0.5, 50: 0.25, 99: 0.005, 100: 0.0},
]


def update(optimizer, params, gradients, steps=1, model=MODEL):
    """The parameters after each of some steps, with gradients by step."""
    transformation = optimizer.build(steps, model=model)

    @jax.jit
    def step(params, state, gradients):
        updates, state = transformation.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    state, found = transformation.init(params), []
    for i in range(steps):
        params, state = step(params, state, gradients(i, params))
        found.append(params)
    return found


def test_the_class_paths_and_fields_of_earlier_runs_are_read():
    schedule = {"class": "jaxclf.optimizers.WarmupCosine", "warmup": 0.1, "final": 0.2}
    sgd = {"class": "jaxclf.optimizers.Sgd", "learning_rate": 0.1, "momentum": 0.9, "nesterov": True, "clip_norm": 1.0}
    expected = Sgd(0.1, 0.9, True, clip_norm=1.0, schedule=WarmupCosine(0.1, 0.2))
    assert from_json(sgd | {"schedule": schedule}) == expected
    adam = {"class": "jaxclf.optimizers.Adam", "learning_rate": 0.1, "weight_decay": 0.2}
    cycle = {"class": "jaxclf.optimizers.OneCycle", "peak_at": 0.2, "start": 0.1, "final": 0.01}
    assert from_json(adam | {"schedule": cycle}) == Adam(0.1, weight_decay=0.2, schedule=OneCycle(0.2, 0.1, 0.01))


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
def test_json_gives_back_the_optimizer(optimizer):
    assert from_json(to_json(optimizer)) == optimizer


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
def test_a_quadratic_is_minimised(optimizer):
    # The sum of x² + 4y² over layers.
    params = {name: {"kernel": jnp.array([[3.0, -2.0]])} for name in ("dense1", "dense2", "logits")}
    end = update(
        optimizer, params, lambda i, params: jax.tree.map(lambda x: jnp.array([[2.0, 8.0]]) * x, params), steps=200
    )[-1]
    jax.tree.map(lambda x: np.testing.assert_allclose(x, 0, atol=0.02), end)


@pytest.mark.parametrize(("schedule", "corners"), list(zip(SCHEDULES, CORNERS, strict=True)))
def test_a_schedule_at_its_corners(schedule, corners):
    rates = Sgd(learning_rate=0.5, schedule=schedule).learning_rates(100)
    for step, rate in corners.items():
        assert float(rates(step)) == pytest.approx(rate, rel=1e-4, abs=1e-8)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: WarmupCosine(warmup=1.5), "warmup=1.5.*set unit to epochs or steps"),
        (lambda: WarmupCosine(warmup=-1.0, unit="steps"), "warmup=-1"),
        (lambda: WarmupLinear(warmup=1.0), "warmup=1.0.*set unit to epochs or steps"),
        (lambda: OneCycle(peak_at=0.0, unit="steps"), "peak_at=0"),
        (lambda: OneCycle(peak_at=0.0), "peak_at=0.0"),
        (lambda: OneCycle(final=0.0), "start and final"),
        (lambda: Sgd(learning_rate=float("nan")), "learning_rate=nan"),
        (lambda: Sgd(learning_rate=0.1, nesterov=True), "set momentum"),
        (lambda: Adam(learning_rate=0.1, beta2=1.0), "beta2=1.0"),
        (lambda: Adam(learning_rate=0.1, clip_norm=0.0), "clip_norm=0.0"),
        (lambda: AdamW(learning_rate=0.1, weight_decay=-1.0), "weight_decay=-1.0"),
        (lambda: AdamW(learning_rate=0.1, layer_decay=0.0), "layer_decay=0.0"),
        (lambda: AdamW(learning_rate=0.1, head_rate=0.0), "head_rate=0.0"),
        (lambda: Lion(learning_rate=0.1, beta2=1.0), "beta2=1.0"),
        (lambda: Muon(learning_rate=0.1, momentum=1.0), "momentum=1.0"),
        (lambda: Muon(learning_rate=0.1, adamw_rate=0.0), "adamw_rate=0.0"),
    ],
)
def test_what_is_out_of_its_range_is_refused(build, message):
    with pytest.raises(UserError, match=message):
        build()


@pytest.mark.parametrize(
    ("steps", "epochs"),
    [
        (WarmupCosine(warmup=20.0, unit="steps"), WarmupCosine(warmup=2.0, unit="epochs")),
        (WarmupLinear(warmup=20.0, unit="steps"), WarmupLinear(warmup=2.0, unit="epochs")),
        (OneCycle(peak_at=29.0, unit="steps"), OneCycle(peak_at=2.9, unit="epochs")),
    ],
)
def test_a_schedule_in_steps_is_that_in_epochs_and_peaks_there(steps, epochs):
    in_steps, in_epochs = (schedule.build(0.5, total_steps=100, epochs=10) for schedule in (steps, epochs))
    rates = [float(in_steps(step)) for step in range(101)]
    assert rates == [float(in_epochs(step)) for step in range(101)]
    assert np.argmax(rates) == (steps.peak_at if isinstance(steps, OneCycle) else steps.warmup)


def test_a_schedule_in_steps_is_that_of_the_fraction():
    for in_steps, fraction in (
        (WarmupCosine(warmup=20.0, unit="steps"), WarmupCosine(warmup=0.2)),
        (WarmupLinear(warmup=20.0, unit="steps"), WarmupLinear(warmup=0.2)),
        (OneCycle(peak_at=25.0, unit="steps"), OneCycle(peak_at=0.25)),
    ):
        a, b = (schedule.build(0.5, 100) for schedule in (in_steps, fraction))
        assert [float(a(step)) for step in range(101)] == [float(b(step)) for step in range(101)]


def test_a_warmup_longer_than_the_run_ends_before_its_last_step():
    assert float(WarmupCosine(warmup=500.0, unit="steps").build(0.5, 10)(9)) == pytest.approx(0.5)
    assert float(WarmupLinear(warmup=500.0, unit="steps").build(0.5, 10)(9)) == pytest.approx(0.5)
    assert float(OneCycle(peak_at=50.0, unit="epochs").build(0.5, 10, epochs=5)(9)) == pytest.approx(0.5)


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


@pytest.mark.parametrize(
    "optimizer",
    [
        AdamW(learning_rate=0.05, beta1=0.8, beta2=0.95, weight_decay=0.1),
        Sgd(learning_rate=0.05, momentum=0.9, nesterov=True, weight_decay=0.1),
    ],
    ids=lambda optimizer: type(optimizer).__name__,
)
def test_steps_are_those_of_pytorch(optimizer):
    # Weight decay of the kernel alone; see "origin" in the file.
    params, *gradients = (
        {name: jnp.array(tree[name]) for name in ("kernel", "bias")} for tree in (TORCH, *TORCH["gradients"])
    )
    found = update(optimizer, params, lambda i, _: gradients[i], steps=3)
    for after, expected in zip(found, TORCH["expected"][type(optimizer).__name__], strict=True):
        for name in params:
            np.testing.assert_allclose(after[name], expected[name], rtol=2e-6)


def apply_sgd(x, g, state, decay):
    state["m"] = g + 0.9 * state.get("m", 0.0)
    return state["m"] + decay * x


def apply_adam(x, g, state, decay, epsilon=1e-8):
    state["i"] = i = state.get("i", 0) + 1
    state["m"] = 0.9 * state.get("m", 0.0) + 0.1 * g
    state["v"] = 0.999 * state.get("v", 0.0) + 0.001 * g**2
    return state["m"] / (1 - 0.9**i) / (np.sqrt(state["v"] / (1 - 0.999**i)) + epsilon) + decay * x


def apply_lion(x, g, state, decay):
    m = state.get("m", np.zeros_like(g))
    state["m"] = 0.99 * m + 0.01 * g
    return np.sign(0.9 * m + 0.1 * g) + decay * x


def apply_lamb(x, g, state, decay):
    step = apply_adam(x, g, state, decay, epsilon=1e-6)
    return step * np.linalg.norm(x) / np.linalg.norm(step) if decay else step


def apply_muon(x, g, state, decay):
    """Orthogonalize by the polynomial of K. Jordan; his Nesterov momentum with optax's correction of the bias."""
    state["i"] = i = state.get("i", 0) + 1
    state["m"] = 0.95 * state.get("m", 0.0) + 0.05 * g
    m = 0.95 * state["m"] / (1 - 0.95 ** (i + 1)) + 0.05 * g / (1 - 0.95**i)
    m = m / np.linalg.norm(m)
    for _ in range(5):
        square = m @ m.T
        m = 3.4445 * m + (-4.7750 * square + 2.0315 * square @ square) @ m
    return 0.2 * np.sqrt(max(g.shape)) * m + decay * x


@pytest.mark.parametrize(
    ("optimizer", "apply", "hidden"),
    [
        (Sgd(learning_rate=0.1, momentum=0.9, decoupled=True, weight_decay=0.1, head_rate=3.0), apply_sgd, apply_sgd),
        (AdamW(learning_rate=0.1, weight_decay=0.1, head_rate=3.0), apply_adam, apply_adam),
        (Lion(learning_rate=0.1, weight_decay=0.1, head_rate=3.0), apply_lion, apply_lion),
        (Lamb(learning_rate=0.1, weight_decay=0.1, head_rate=3.0), apply_lamb, apply_lamb),
        (Muon(learning_rate=0.1, weight_decay=0.1, head_rate=3.0), apply_adam, apply_muon),
    ],
    ids=lambda each: type(each).__name__ if hasattr(each, "build") else "",
)
def test_three_steps_are_the_formula_with_decay_of_kernels_and_a_rate_of_the_head(optimizer, apply, hidden):
    random = np.random.default_rng(0)
    shapes = [("dense1", (2, 3)), ("dense2", (3, 5)), ("logits", (5, 2))]
    expected, *gradients = [
        {name: {"kernel": random.normal(size=shape), "bias": random.normal(size=shape[1:])} for name, shape in shapes}
        for _ in range(4)
    ]
    found = update(optimizer, jax.tree.map(jnp.float32, expected), lambda i, _: gradients[i], steps=3)
    states = {}
    for i, after in enumerate(found):
        for layer, parameters in expected.items():
            for name, x in parameters.items():
                rule = hidden if (layer, name) == ("dense2", "kernel") else apply
                step = rule(
                    x, gradients[i][layer][name], states.setdefault((layer, name), {}), 0.1 * (name == "kernel")
                )
                parameters[name] = x - 0.1 * (3 if layer == "logits" else 1) * step
                np.testing.assert_allclose(after[layer][name], parameters[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("path", "shape", "matrix"),
    [
        (("conv", "kernel"), (3, 3, 2, 4), (18, 4)),
        (("attention", "query", "kernel"), (6, 2, 4), (6, 8)),
        (("attention", "out", "kernel"), (2, 4, 6), (8, 6)),
    ],
    ids=lambda each: "/".join(each) if isinstance(each[0], str) else "",
)
def test_muon_treats_kernels_as_matrices_of_inputs_and_outputs(path, shape, matrix):
    gradient = np.random.default_rng(0).normal(size=shape).astype(np.float32)

    def move(gradient, path):
        tree = gradient
        for name in reversed(path):
            tree = {name: tree}
        tree = {"first": {"bias": jnp.ones(1)}, "head": {"bias": jnp.ones(1)}} | tree
        optimizer = Muon(learning_rate=0.1, weight_decay=0.0)
        (after,) = update(
            optimizer, jax.tree.map(jnp.zeros_like, tree), lambda i, _: tree, model=Declared(("first", path[0], "head"))
        )
        for name in path:
            after = after[name]
        return after

    expected = move(gradient.reshape(matrix), (path[0], "kernel"))
    np.testing.assert_allclose(move(gradient, path).reshape(matrix), expected, rtol=1e-5, atol=1e-7)
