"""Balanced gradients (LibraGrad): complete, conserved, and equal to constant-attention LRP."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.networks import draw_variables
from support.saliency import Mixer, check_identity

from jaxclf import saliency
from jaxclf.errors import UserError
from jaxclf.models import Vit
from jaxclf.saliency import Balanced, FullGrad, Gradient, Lrp
from jaxclf.saliency.methods.balanced_rules import balance

RANDOM = np.random.default_rng(0)
VIT = Vit(patch=4, width=8, depth=1, heads=2, classes=3, image_size=(8, 8))
IMAGES = RANDOM.random((2, 8, 8, 1), np.float32)


def test_full_gradients_are_complete_on_a_vit():
    model = VIT.clone(qk_norm=True, layer_scale=0.5)
    variables = draw_variables(model, IMAGES.shape)
    a = Balanced(FullGrad())(model, variables, IMAGES, 1)
    np.testing.assert_allclose(a.delta, np.zeros(2), atol=1e-5)
    np.testing.assert_allclose(a.score, model.apply(variables, IMAGES)[:, 1], rtol=1e-4)


@pytest.mark.parametrize("activation", ["gelu", "swiglu"])
def test_gradient_times_input_is_lrp_with_constant_attention(activation):
    """With biases too: neither gives pixels what biases have."""
    check_identity(Mixer(activation), IMAGES)


def test_a_method_is_balanced_once():
    for method in (Balanced(Gradient()), saliency.SmoothGrad(Balanced(Gradient()))):
        with pytest.raises(UserError, match="the method is balanced already"):
            Balanced(method)


OPERATIONS = {
    "gate": (lambda x, y: x * jax.nn.sigmoid(x), 1),
    "product": (lambda x, y: x * y, 2),
    "mixture": (jnp.matmul, 2),
    "square": (lambda x, y: x**2 + jnp.square(y), 2),
    "quotient": (lambda x, y: x / (1 + jnp.abs(y)), 1),
    "normalized": (lambda x, y: x / jnp.sqrt(jnp.square(x).mean(-1, keepdims=True)), 1),
    "attention": (lambda x, y: jax.nn.softmax(y) @ x, 1),
    "tanh": (lambda x, y: jnp.tanh(x), 1),
    "relu": (lambda x, y: nn.relu(x) + jnp.maximum(y, 0), 2),
    "cube": (lambda x, y: x**3, 1),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_conserves_gradient_times_input(name):
    """And its value is what it was."""
    function, dependent = OPERATIONS[name]
    x, y = RANDOM.normal(size=(2, 4, 4)).astype(np.float32)
    value, pull = jax.vjp(balance(function), x, y)
    np.testing.assert_allclose(value, function(x, y), rtol=1e-6)
    gradients = pull(jnp.ones_like(value))
    total = (x * gradients[0]).sum() + (y * gradients[1]).sum()
    np.testing.assert_allclose(total, value.sum(), rtol=1e-4)
    if dependent == 1:
        np.testing.assert_array_equal(gradients[1], np.zeros((4, 4)))


FACTORS = {
    "inverse": lambda x: 1 / jnp.abs(x).sum(-1, keepdims=True),
    "power": lambda x: (1 + jnp.square(x).sum(-1, keepdims=True)) ** -0.5,
    "whole power": lambda x: jax.lax.integer_pow(jnp.abs(x).sum(-1, keepdims=True), -1),
    "root": lambda x: jnp.sqrt(jnp.maximum(jnp.square(x).mean(-1, keepdims=True), 1e-6)),
    "response": lambda x: jnp.sqrt(r := jnp.square(x).sum(0, keepdims=True)) / (jnp.sqrt(r).mean(-1) + 1)[..., None],
    "attention": lambda x: 2 * jax.nn.softmax(x),
}


@pytest.mark.parametrize("name", FACTORS)
def test_what_normalizes_is_constant(name):
    x = RANDOM.normal(size=(4, 3)).astype(np.float32)
    factor = FACTORS[name]
    gradients = jax.grad(lambda x: balance(lambda x: x * factor(x))(x).sum())(x)
    np.testing.assert_allclose(gradients, np.broadcast_to(factor(x), x.shape), rtol=1e-5)


@pytest.mark.parametrize("function", [jax.nn.sigmoid, jnp.exp, jnp.cos, nn.softplus])
def test_values_at_zero_are_biases(function):
    """So full gradients stay complete; a line from there has a finite slope, also near 0."""
    x = np.concatenate([RANDOM.normal(size=(4, 5)), np.array([[0, 1e-6, -1e-3, 30, -30]])]).astype(np.float32)
    a = Balanced(FullGrad())(lambda _, x: function(x), {}, x, 0)
    np.testing.assert_allclose(a.delta, np.zeros(5), atol=1e-5)
    if function is nn.softplus:  # of several operations, with a value at zero for each
        return
    slope = jax.vmap(jax.grad(balance(function)))(x[-1])
    expected = (np.float64(function(x[-1, 3:])) - np.float64(function(0.0))) / x[-1, 3:]
    np.testing.assert_allclose(slope[3:], expected, rtol=1e-4)
    np.testing.assert_allclose(slope[:3], np.full(3, jax.grad(function)(0.0)), atol=1e-3)


def test_every_gradient_method_can_be_balanced():
    """A ReLU network without biases has balanced gradients already; guided ones keep their ReLUs."""
    w, v = RANDOM.normal(size=(4, 6)).astype(np.float32), RANDOM.normal(size=(6, 2)).astype(np.float32)

    def model(_, x):
        return nn.relu(x @ w) @ v

    images = RANDOM.random((3, 4), np.float32)
    for method in (Gradient(), saliency.GuidedBackprop(), saliency.IntegratedGradients(rule="adaptive")):
        a, b = (m(model, {}, images, 1, key=jax.random.key(0)) for m in (method, Balanced(method)))
        np.testing.assert_allclose(a.values, b.values, rtol=1e-4, atol=1e-6)

    def gated(_, x):
        return nn.relu(x @ w) * (x @ w[::-1]) @ v

    guided = saliency.GuidedBackprop()
    plain, alone, both = (m(gated, {}, images, 1).values for m in (Balanced(), guided, Balanced(guided)))
    assert np.abs(plain - both).max() > 1e-3
    assert np.abs(alone - both).max() > 1e-3


def test_a_variance_is_no_relu_for_balanced_guided_methods():
    """Balanced first, LayerNorm's max(0, variance) would be taken for one."""

    def model(_, x):
        return jax.nn.gelu(nn.LayerNorm().apply({"params": {"scale": jnp.ones(4), "bias": jnp.ones(4)}}, x))

    with pytest.raises(UserError, match="this model has no ReLU"):
        Balanced(saliency.GuidedBackprop())(model, {}, RANDOM.random((3, 4), np.float32), 1)


@pytest.mark.parametrize(
    "method", [Lrp(), saliency.DeepLift(), saliency.Occlusion(), saliency.SmoothGrad(saliency.Rise())], ids=str
)
def test_methods_without_gradients_are_refused(method):
    with pytest.raises(UserError, match=r"Balanced\(\w+\(\)\): expected a method that uses gradients"):
        Balanced(method)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda x: jnp.cumprod(x, axis=1), "cumprod"),
        (lambda x: x ** x[:, ::-1], "pow"),
        (lambda x: jax.lax.while_loop(lambda x: x[0, 0] < 1, lambda x: 2 * x, x), "while"),
    ],
    ids=["product", "power", "loop"],
)
def test_what_has_no_rule_is_named(function, name):
    with pytest.raises(UserError, match=f"Balanced has no rule for '{name}'"):
        Balanced()(lambda _, x: function(x), {}, np.full((2, 3), 0.5, np.float32), 0)
