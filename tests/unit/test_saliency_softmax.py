"""Softmax is found in traced programs, whichever library or hand wrote it."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support.networks import draw_variables

from jaxclf.models import Vit
from jaxclf.saliency.methods.softmax import Classified, SoftmaxReplacer
from jaxclf.xla.interpreter import get_array, is_traced

RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(size=(2, 3, 4)).astype(np.float32)
MASK = np.array([True, False, True, True])[None, None]


def replace_softmaxes(function, replace):
    """The function with the outputs of each softmax that depends on its arguments replaced."""

    def run(*arguments):
        outputs = SoftmaxReplacer(replace).run(function, *jax.tree.map(Classified, arguments))
        return jax.tree.map(get_array, outputs, is_leaf=is_traced)

    return run


def exponentials(x):
    return jnp.exp(x - x.max(-1, keepdims=True))


def divide_by_sum(x):
    e = exponentials(x)
    return e / e.sum(-1, keepdims=True)


def multiply_by_inverse(x):
    e = exponentials(x)
    return e * (1 / (e.sum(-1, keepdims=True) + 1e-9))


def mask_exponentials(x):
    e = jnp.where(MASK, jnp.exp(x), 0)
    return e / jnp.maximum(e.sum(-1, keepdims=True), 1e-9)


def use_custom_derivative(x):
    with jax.softmax_custom_jvp(True):
        return jax.nn.softmax(x)


def use_half_precision(x):
    return jax.nn.softmax(x.astype(jnp.bfloat16)).astype(jnp.float32)


def scan_rows(x):
    return jax.lax.scan(lambda carry, row: (carry, jax.nn.softmax(row + carry)), jnp.zeros((3, 4)), x)[1]


FORMS = {
    "jax": (jax.nn.softmax, LOGITS, -1),
    "linen": (nn.softmax, LOGITS, -1),
    "nnx": (nnx.softmax, LOGITS, -1),
    "axes": (lambda x: jax.nn.softmax(x, axis=(1, 2)), LOGITS, (1, 2)),
    "jit": (jax.jit(lambda x: 2 * jax.nn.softmax(x)), LOGITS, -1),
    "vmap": (jax.vmap(jax.nn.softmax), LOGITS, -1),
    "checkpoint": (jax.checkpoint(jax.nn.softmax), LOGITS, -1),
    "scan": (scan_rows, LOGITS, -1),
    "custom": (use_custom_derivative, LOGITS, -1),
    "half": (use_half_precision, LOGITS, -1),
    "where": (lambda x: jax.nn.softmax(x, where=MASK), np.where(MASK, LOGITS, -np.inf), -1),
    "computed mask": (lambda x: jax.nn.softmax(x, where=x > 0), np.where(LOGITS > 0, LOGITS, -np.inf), -1),
    "by hand": (divide_by_sum, LOGITS, -1),
    "by inverse": (multiply_by_inverse, LOGITS, -1),
    "without maximum": (lambda x: jnp.exp(x) / jnp.exp(x).sum(-1, keepdims=True), LOGITS, -1),
    "masked by hand": (mask_exponentials, LOGITS, -1),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_softmax_is_found_with_its_inputs(name):
    function, inputs, axes = FORMS[name]
    found = []

    def replace(inputs, outputs, axes):
        jax.debug.callback(lambda x, y: found.append((x, y, axes)), inputs, outputs)
        return outputs * 0

    values = replace_softmaxes(function, replace)(LOGITS)
    jax.effects_barrier()
    np.testing.assert_array_equal(values, np.zeros_like(LOGITS))
    places = sorted(range(len(found)), key=lambda i: not np.allclose(found[i][0], LOGITS[0], atol=0.02))
    found_inputs, outputs, found_axes = (
        found[0] if len(found) == 1 else [np.stack([found[i][k] for i in places]) for k in (0, 1)] + [found[0][2]]
    )
    np.testing.assert_allclose(np.float32(found_inputs), inputs, atol=0.02)
    expected = function(LOGITS) / (2 if name == "jit" else 1)
    np.testing.assert_allclose(np.where(np.isinf(inputs), 0, np.float32(outputs)), expected, atol=0.01)
    rank = np.ndim(found_inputs) - (len(found) > 1)
    assert sorted(axis % rank for axis in found_axes) == sorted(axis % 3 - 3 + rank for axis in np.ravel(axes))


OTHERS = {
    "sigmoid": jax.nn.sigmoid,
    "sum of others": lambda x: jnp.exp(x) / jnp.exp(x[:, ::-1]).sum(-1, keepdims=True),
    "sum of shifted ones": lambda x: jnp.exp(x) / exponentials(x).sum(-1, keepdims=True),
    "product with the sum": lambda x: jnp.exp(x) * jnp.exp(x).sum(-1, keepdims=True),
    "log of softmax": jax.nn.log_softmax,
    "normalization": lambda x: x / x.sum(-1, keepdims=True),
    "squared": lambda x: jnp.exp(x) ** 2 / jnp.exp(x).sum(-1, keepdims=True),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_softmax_is_left_alone(name):
    def refuse(inputs, outputs, axes):
        raise AssertionError("no softmax")

    replace_softmaxes(OTHERS[name], refuse)(LOGITS)


def test_the_attention_of_each_block_is_found_in_order():
    model = Vit(patch=4, width=8, depth=2, heads=2, classes=3, image_size=(8, 8), remat=True)
    images = RANDOM.random((2, 8, 8, 1), np.float32)
    variables = draw_variables(model, images.shape)
    shapes = []

    def replace(inputs, outputs, axes):
        shapes.append((outputs.shape, axes))
        return outputs

    values = replace_softmaxes(lambda x: model.apply(variables, x), replace)(images)
    assert shapes == 2 * [((2, 2, 5, 5), (3,))]
    np.testing.assert_allclose(values, model.apply(variables, images), rtol=1e-4)


@pytest.mark.parametrize("implementation", ["xla", "linen", "nnx"])
def test_attention_of_other_libraries_is_found(implementation):
    x = RANDOM.normal(size=(2, 5, 4)).astype(np.float32)

    def attend(x):
        if implementation == "xla":
            heads = x.reshape(2, 5, 2, 2)
            return jax.nn.dot_product_attention(heads, heads, heads, implementation="xla")
        if implementation == "linen":
            return nn.MultiHeadDotProductAttention(num_heads=2).init_with_output(jax.random.key(0), x)[0]
        return nnx.MultiHeadAttention(2, 4, decode=False, rngs=nnx.Rngs(0))(x)

    shapes = []

    def replace(inputs, outputs, axes):
        shapes.append(outputs.shape)
        return outputs

    replace_softmaxes(attend, replace)(x)
    assert [sorted(shape[-4:]) for shape in shapes] == [[2, 2, 5, 5]]
