"""Integrated gradients: closed forms, axioms, and the mistakes of others."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxclf import saliency
from jaxclf.errors import UserError
from jaxclf.saliency.methods.integrated_gradients import compute_quadrature

RULES = ("gauss_legendre", "trapezoid", "midpoint", "left", "right")
CURVES = {
    "linear": lambda t: t,
    "cubic": lambda t: t**3,
    "kink": lambda t: jax.nn.relu(2 * t - 1),
    "sigmoid": lambda t: jax.nn.sigmoid(10 * (t - 0.5)),
}


def curve(name, variables, images):
    """A model of one pixel and one class."""
    return CURVES[name](images)


# Origin: relative errors of f(1) - f(0), re-derived from each library's nodes and weights.
@pytest.mark.parametrize(
    ("rule", "steps", "errors"),
    [
        ("gauss_legendre", 50, (0, 0, 0, 0)),
        ("midpoint", 50, (0, 1e-4, 0, 2.2e-5)),
        ("left", 50, (0, 3.0e-2, 4e-2, 4.4e-5)),
        ("right", 50, (0, 3.0e-2, 0, 4.4e-5)),
        ("trapezoid", 50, (0, 2.1e-4, 0, 4.6e-5)),
    ],
)
def test_the_rules_have_their_known_errors(rule, steps, errors):
    for name, error in zip(CURVES, errors, strict=True):
        a = saliency.IntegratedGradients(steps=steps, rule=rule)(partial(curve, name), {}, np.ones((1, 1), np.float32))
        whole = float(CURVES[name](1.0) - CURVES[name](0.0))
        assert abs(a.delta[0]) / whole == pytest.approx(error, rel=0.05, abs=2e-6)
        np.testing.assert_array_equal(a.evaluations, [steps + 2])


def test_each_rule_sums_to_one_and_refuses_too_few_steps():
    for rule in RULES:
        for steps in (2, 3, 50):
            nodes, weights = compute_quadrature(rule, steps)
            assert weights.sum() == pytest.approx(1)  # the peer's trapezoid sums to (n - 1) / n: 2 % off at 50
            assert 0 <= nodes.min() <= nodes.max() <= 1
    with pytest.raises(UserError, match="steps=1: expected at least 2"):
        saliency.IntegratedGradients(steps=1, rule="trapezoid")
    with pytest.raises(UserError, match="steps=0: expected at least 1"):
        saliency.IntegratedGradients(steps=0)


def separable(variables, images):
    """5 x, y squared and the sine of z."""
    x, y, z = images.T
    return (5 * x + y**2 + jnp.sin(z))[:, None]


def test_of_a_sum_of_functions_each_pixel_gets_its_own_change():
    """Origin: the tests of PAIR's saliency library."""
    images, baseline = np.float32([[1, 2, 3]]), np.float32([0.5, 1, 1])
    a = saliency.IntegratedGradients(steps=20)(separable, {}, images, baseline=baseline)
    np.testing.assert_allclose(a.values, [[2.5, 3, np.sin(3) - np.sin(1)]], atol=1e-5)
    assert a.values[0, 2] == pytest.approx(-0.700351, abs=1e-5)


def quadratic(variables, images):
    """x'Ax / 2 for a symmetric A."""
    return 0.5 * jnp.sum(images @ variables * images, axis=1, keepdims=True)


def symmetric(random, n):
    half = random.normal(size=(n, n))
    return np.float32(half + half.T)


def test_of_a_quadratic_each_pixel_gets_half_its_gradient_times_itself(random):
    matrix, images = symmetric(random, 5), np.float32(random.normal(size=(3, 5)))
    a = saliency.IntegratedGradients(steps=2)(quadratic, matrix, images)
    np.testing.assert_allclose(a.values, images * (images @ matrix) / 2, atol=1e-5)
    np.testing.assert_allclose(a.delta, 0, atol=1e-5)


def relu_network(variables, images):
    """Two layers of ReLU, with biases where there are any."""
    hidden = jax.nn.relu(images @ variables["a"] + variables.get("c", 0.0))
    return jax.nn.relu(hidden @ variables["b"]) @ variables["d"]


def weights(random, n=6, **more):
    shapes = {"a": (n, 9), "b": (9, 7), "d": (7, 3)}
    return {name: np.float32(random.normal(size=shape)) for name, shape in shapes.items()} | more


@pytest.mark.parametrize("rule", RULES)
def test_without_biases_it_is_gradient_times_input_however_few_steps(rule, random):
    variables, images = weights(random), np.float32(random.normal(size=(4, 6)))
    # A ReLU has no slope at 0: rules that look there must look elsewhere too.
    steps, share = (
        (4, 1.0) if rule in ("gauss_legendre", "midpoint", "right") else (4, 3 / 4 if rule == "left" else 5 / 6)
    )
    a = saliency.IntegratedGradients(steps=steps, rule=rule)(relu_network, variables, images)
    whole = saliency.GradientTimesInput()(relu_network, variables, images)
    np.testing.assert_allclose(a.values, share * whole.values, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(whole.delta, 0, atol=1e-4)


def both(variables, images):
    return relu_network(variables[0], images) + 2 * relu_network(variables[1], images)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**31), rule=st.sampled_from(["gauss_legendre", "trapezoid", "midpoint"]))
def test_axioms(seed, rule):
    """Pixels that do not matter get nothing, equal ones the same, sums of models add, the way back is the negative."""
    random = np.random.default_rng(seed)
    variables, other = weights(random), weights(random)
    variables["a"][2] = 0
    variables["a"][4] = variables["a"][5]
    images, baseline = np.float32(random.normal(size=(2, 3, 6)))
    images[:, 4], baseline[:, 4] = images[:, 5], baseline[:, 5]
    method = saliency.IntegratedGradients(steps=30, rule=rule)
    call = partial(method, targets=1, baseline=baseline)
    values = call(relu_network, variables, images).values
    np.testing.assert_array_equal(values[:, 2], 0)
    np.testing.assert_allclose(values[:, 4], values[:, 5], rtol=1e-5)
    back = method(relu_network, variables, baseline, 1, baseline=images).values
    np.testing.assert_allclose(values, -back, rtol=1e-3, atol=1e-4)
    of_both = call(both, (variables, other), images).values
    of_each = values + 2 * call(relu_network, other, images).values
    np.testing.assert_allclose(of_both, of_each, rtol=1e-3, atol=1e-4)


def test_memory_does_not_grow_with_steps(random):
    variables, images = weights(random, 1_000), np.float32(random.normal(size=(64, 1_000)))

    def peak(steps):
        # Gauss-Legendre's 2,000 nodes would take seconds to find, and are used in the same way.
        call = jax.jit(saliency.IntegratedGradients(steps=steps, rule="midpoint"), static_argnums=0)
        return call.lower(relu_network, variables, images).compile().memory_analysis().temp_size_in_bytes

    assert peak(2_000) < 1.1 * peak(20)


def test_training_can_differentiate_through_it(random):
    """The derivative by the weights of a sum that is complete is that of the score's change."""
    variables, images = weights(random), np.float32(random.normal(size=(4, 6)))
    method = saliency.IntegratedGradients(steps=8)
    total = jax.grad(lambda v: method(quadratic, v, images).values.sum())(symmetric(random, 6))
    change = jax.grad(lambda v: quadratic(v, images).sum())(symmetric(random, 6))
    np.testing.assert_allclose(total, change, atol=1e-4)
    assert np.isfinite(jax.grad(lambda v: method(relu_network, v, images).values[0, 0])(variables)["a"]).all()


def test_adaptive_takes_more_steps_where_more_are_needed(random):
    variables = weights(random, c=np.float32(random.normal(size=(1, 9))))
    scales = np.repeat(np.float32([0.01, 0.1, 1, 3, 10, 30]), 10)
    images = np.float32(random.normal(size=(60, 6))) * scales[:, None]
    a = saliency.IntegratedGradients(rule="adaptive", tolerance=1e-3)(relu_network, variables, images)
    exact = saliency.IntegratedGradients(steps=50_000, rule="midpoint")(relu_network, variables, images)
    targets = np.argmax(relu_network(variables, images), axis=1)
    change = np.abs(exact.score - relu_network(variables, 0 * images)[np.arange(60), targets])
    allowed, converged = 1e-3 * np.maximum(1, change), np.asarray(a.evaluations) < 4096 + 2
    assert converged.mean() > 0.5
    assert (np.abs(a.delta) <= allowed)[converged].all()
    # The error is an estimate from two rules in a row, which may agree by chance: 2.4 times as large was the most seen.
    errors = (np.abs(a.values - exact.values).sum(axis=1) / allowed)[converged]
    assert np.mean(errors <= 1) > 0.9
    assert errors.max() < 10
    assert a.evaluations.min() < 50 < a.evaluations.max() <= 4096 + 2


def test_adaptive_stops_at_the_most_steps_it_may_take(random):
    variables = weights(random, c=np.float32(random.normal(size=(1, 9))))
    images = np.float32(random.normal(size=(4, 6)))
    for most, taken in ((16, 16), (100, 64), (128, 128)):
        method = saliency.IntegratedGradients(rule="adaptive", tolerance=1e-9, max_steps=most)
        np.testing.assert_array_equal(method(relu_network, variables, images).evaluations, taken + 2)
    with pytest.raises(UserError, match="max_steps=15: expected at least 16"):
        saliency.IntegratedGradients(rule="adaptive", max_steps=15)
    with pytest.raises(UserError, match="tolerance=0"):
        saliency.IntegratedGradients(rule="adaptive", tolerance=0.0)


def test_adaptive_sends_no_more_rows_through_the_model_than_it_says(random):
    """Examples that are done are not computed again: rows are counted as they run."""
    variables = weights(random, c=np.float32(random.normal(size=(1, 9))))
    images = np.float32(random.normal(size=(6, 6))) * np.float32([[0.01], [0.1], [1], [3], [10], [30]])
    rows = []

    def counted(variables, images):
        jax.debug.callback(lambda x: rows.append(x.shape[0]), images)
        return relu_network(variables, images)

    a = saliency.IntegratedGradients(rule="adaptive", max_rows=8)(counted, variables, images)
    jax.effects_barrier()
    sent, said = sum(rows), int(a.evaluations.sum())
    assert sent <= said + 8 * 12  # the last call of each halving is not full
    assert sent < 0.7 * 6 * int(a.evaluations.max())
