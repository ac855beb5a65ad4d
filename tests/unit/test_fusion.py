"""What several kernels read is found through fused operations, and is computed once."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxclf.xla.convolutions import rewrite_convolutions
from jaxclf.xla.fusion import compute_once, find_recomputed


def find_marked(function, *arguments):
    """Whether several kernels read the sine in a function."""
    program = jax.make_jaxpr(function)(*arguments).jaxpr
    (variable,) = (eqn.outvars[0] for eqn in program.eqns if eqn.primitive.name == "sin")
    return variable in find_recomputed(program)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x: jnp.sin(x) @ x, False),
        (lambda x: jnp.tanh(2 * jnp.sin(x) + 1), False),
        (lambda x: (lambda y: y @ x + y)(jnp.sin(x)), True),
        (lambda x: (lambda y: (y * 2) @ jnp.tanh(y + 1))(jnp.sin(x)), False),  # one product reads both
        (lambda x: (lambda y: (2 * y @ x) @ jnp.tanh(y).T)(jnp.sin(x)), True),
        (lambda x: (lambda y: lax.fori_loop(0, 3, lambda i, s: s + y[i], jnp.zeros(4)) + y.sum(0))(jnp.sin(x)), True),
    ],
)
def test_kernels_that_read_a_variable_are_counted(function, expected):
    assert find_marked(function, jnp.ones((4, 4))) == expected


def test_what_is_computed_once_has_the_same_values_and_derivatives():
    x = jnp.linspace(-1, 1, 12).reshape(3, 4)

    def function(x, y):
        return jnp.sin(x) * y

    for derive in (lambda f: f, lambda f: jax.grad(lambda *xs: (f(*xs) ** 2).sum(), (0, 1))):
        found, expected = derive(lambda *xs: compute_once(function, *xs))(x, 2 * x), derive(function)(x, 2 * x)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, expected)
    program = jax.jit(lambda x: compute_once(function, x, x) @ x.T + compute_once(function, x, x).sum()).lower(x)
    assert "conditional(" in program.compile().as_text()  # or XLA would fuse the sine into both


def test_depthwise_convolutions_are_computed_once_if_two_kernels_read_them():
    images, kernel = jnp.ones((2, 6, 6, 3)), jnp.ones((3, 3, 1, 3))

    def convolve(images, kernel):
        return lax.conv_general_dilated(
            images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=3
        )

    def count(function):
        program = jax.make_jaxpr(rewrite_convolutions(function))(images, kernel)
        return sum(eqn.primitive.name == "cond" for eqn in program.eqns)

    assert count(lambda images, kernel: jax.nn.relu(convolve(images, kernel) + 1).sum()) == 0
    assert count(lambda images, kernel: (lambda y: (y.sum(), (y - 1).max()))(convolve(images, kernel))) == 1


def test_what_is_computed_once_needs_no_exchange_between_devices():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    images = jax.device_put(jnp.ones((8, 6, 6, 3)), NamedSharding(mesh, PartitionSpec("data")))
    kernel = jax.device_put(jnp.ones((3, 3, 1, 3)), NamedSharding(mesh, PartitionSpec()))

    def compute_loss(kernel, images):
        y = lax.conv_general_dilated(
            images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=3
        )
        return ((y - y.mean((0, 1, 2), keepdims=True)) ** 2).mean()

    differentiated = rewrite_convolutions(jax.value_and_grad(compute_loss))
    text = jax.jit(differentiated).lower(kernel, images).compile().as_text()
    assert "conditional(" in text
    exchanges = re.findall(r"\b(all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)\b", text)
    assert set(exchanges) == {"all-reduce"}  # of the loss, the mean and the gradient, as without the condition
