"""Products of several axes become products of matrices, with the same values and derivatives."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxclf.xla.convolutions import rewrite_convolutions

RANDOM = np.random.default_rng(0)
# Shapes, pairs of summed axes, and whether the product is one of matrices.
CASES = {
    "tokens": ((3, 4, 5), (5, 6), ([2], [0]), True),
    "weight gradient": ((3, 4, 5), (3, 4, 6), ([0, 1], [0, 1]), True),
    "axes in another order": ((3, 4, 5), (3, 4, 6), ([1, 0], [1, 0]), True),
    "first axes and last axes": ((3, 4, 5), (6, 3, 4), ([0, 1], [1, 2]), True),
    "heads": ((2, 3, 4, 5), (6, 4, 5), ([2, 3], [1, 2]), True),
    "all axes": ((3, 4), (3, 4), ([0, 1], [0, 1]), True),
    "outer product": ((2, 3, 2), (4,), ([], []), True),
    "one order in each": ((3, 4, 5), (4, 3, 6), ([0, 1], [1, 0]), False),
    "axes between others": ((3, 4, 5), (4, 6), ([1], [0]), False),
}


def list_ranks(function, *operands):
    """The ranks of the operands of all products of a program."""
    program = jax.make_jaxpr(rewrite_convolutions(function))(*operands)
    return [x.aval.ndim for eqn in program.eqns if eqn.primitive.name == "dot_general" for x in eqn.invars]


def beside_a_convolution(function):
    """A program with a convolution: others are left as they are."""

    def run(*operands):
        images = jnp.ones((1, 4, 4, 1))
        return function(*operands), lax.conv(images.transpose(0, 3, 1, 2), jnp.ones((1, 1, 3, 3)), (1, 1), "SAME")

    return run


@pytest.mark.parametrize("name", CASES)
def test_products_of_matrices_have_the_same_values(name):
    left, right, summed, is_product = CASES[name]
    with jax.enable_x64(True):
        operands = [jnp.asarray(RANDOM.normal(size=shape)) for shape in (left, right)]

        def multiply(x, y):
            product = lax.dot_general(x, y, (summed, ([], [])))
            return product, jax.vjp(lambda *operands: lax.dot_general(*operands, (summed, ([], []))), x, y)[1](product)

        run = beside_a_convolution(multiply)
        plain, fast = run(*operands), jax.jit(rewrite_convolutions(run))(*operands)
        for x, y in zip(jax.tree.leaves(plain), jax.tree.leaves(fast), strict=True):
            assert y.dtype == x.dtype
            np.testing.assert_allclose(y, x, rtol=0, atol=1e-13 * np.abs(x).max())
    single = beside_a_convolution(lambda x, y: lax.dot_general(x, y, (summed, ([], []))))
    assert (set(list_ranks(single, *operands)) <= {2}) == is_product


def test_dense_layers_on_tokens_and_attention_train_by_products_of_matrices():
    model, x = nn.MultiHeadDotProductAttention(2), jnp.asarray(RANDOM.normal(size=(2, 5, 6)), jnp.float32)
    variables = model.init(jax.random.key(0), x)

    def differentiate(variables, x):
        return jax.grad(lambda *operands: (model.apply(*operands) ** 2).sum(), (0, 1))(variables, x)

    ranks = list_ranks(beside_a_convolution(differentiate), variables, x)
    # Scores and mixed values have a batch of heads, forward and in two gradients each.
    assert sorted(ranks) == [2] * (2 * 3 * 4) + [4] * (2 * 3 * 2)


def test_without_convolutions_products_stay_as_they_are():
    x = jnp.ones((2, 3, 4))
    assert list_ranks(lambda x: lax.dot_general(x, x, (([0, 1], [0, 1]), ([], []))), x) == [3, 3]
