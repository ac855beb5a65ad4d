"""Options of the compiler: where they are given, and that they change rounding only."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from jaxclf import saliency
from jaxclf.saliency import compiler

IMAGES = np.float32(np.random.default_rng(0).normal(size=(4, 12, 12, 3)))


class Net(nn.Module):
    """Two convolutions, each with an activation."""

    activation: str

    @nn.compact
    def __call__(self, images, train=False):
        activation = getattr(nn, self.activation)
        x = activation(nn.Conv(16, (3, 3))(images))
        x = activation(nn.Conv(8, (3, 3))(x))
        return nn.Dense(3)(x.reshape(x.shape[0], -1))


@pytest.mark.parametrize("activation", ["relu", "silu", "gelu", "tanh", "sigmoid", "softplus", "elu", "leaky_relu"])
def test_called_by_itself_a_method_says_what_it_says_inside_a_program(activation):
    """An option once miscompiled x * sigmoid(x) behind a convolution."""
    model = Net(activation)
    variables = model.init(jax.random.key(0), IMAGES)
    for method in (saliency.Gradient(), saliency.IntegratedGradients(steps=3)):
        alone = method(model, variables, IMAGES).values
        inside = jax.jit(method, static_argnums=0)(model, variables, IMAGES).values
        np.testing.assert_allclose(alone, inside, atol=1e-4 * np.abs(inside).max())


@pytest.fixture
def accepted(monkeypatch):
    monkeypatch.setattr(compiler, "_accepted", lambda: True)


def options(activation):
    model = Net(activation)
    return compiler.compiler_options(model, model.init(jax.random.key(0), IMAGES), IMAGES, None)


def test_options_are_for_networks_of_relus_alone(accepted):
    assert options("relu") == compiler.ONEDNN
    assert options("silu") == options("gelu") == ()


def test_flags_of_the_users_own_go_before(accepted, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_experimental_onednn_custom_call=false")
    assert options("relu") == ()


def test_a_part_of_a_program_has_none(accepted):
    model, given = Net("relu"), []
    variables = model.init(jax.random.key(0), IMAGES)
    jax.jit(lambda: given.append(compiler.compiler_options(model, variables, IMAGES)))()
    jax.grad(lambda x: given.append(compiler.compiler_options(model, variables, x)) or x.sum())(IMAGES)
    assert given == [(), ()]
