"""Helpers for tests of saliency methods."""

from contextlib import contextmanager

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from support.networks import draw_variables

from jaxclf import saliency


@contextmanager
def traced_rows():
    """The number of rows of each call of a model that is traced inside the block."""
    rows = []

    def record(call, arguments, options, context):
        if context.method_name == "__call__" and context.module.path == ():
            rows.append(arguments[0].shape[0])
        return call(*arguments, **options)

    with nn.intercept_methods(record):
        yield rows


def limited(method, rows):
    """The method with another `max_rows`, inside all wrappers."""
    if hasattr(method, "method"):
        return type(method)(**(vars(method) | {"method": limited(method.method, rows)}))
    return type(method)(**(vars(method) | {"max_rows": rows}))


ACTIVATIONS = {
    "gelu": lambda x: nn.gelu(x, approximate=False),
    "tanh gelu": nn.gelu,
    "silu": nn.silu,
    "mish": lambda x: x * jnp.tanh(nn.softplus(x)),
    "hard swish": nn.hard_swish,
    "tanh": jnp.tanh,
    "elu": nn.elu,
    "relu": nn.relu,
}


class Mixer(nn.Module):
    """Attention of Flax, a normalization and an activation, with biases."""

    activation: str = "gelu"
    norm: type = nn.LayerNorm

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(8)(x.reshape(x.shape[0], 16, -1))
        x = x + nn.MultiHeadDotProductAttention(num_heads=2)(self.norm()(x))
        hidden = nn.Dense(12)(self.norm()(x))
        if self.activation == "swiglu":
            hidden = nn.silu(hidden) * nn.Dense(12)(x)
        else:
            hidden = ACTIVATIONS[self.activation](hidden)
        return nn.Dense(3)((x + nn.Dense(8)(hidden)).mean(axis=1))


def check_identity(model, images):
    """LibraGrad's gradient times input is LRP with constant attention."""
    variables = draw_variables(model, images.shape)
    a, b = (
        saliency.all_classes(method)(model, variables, images)
        for method in (
            saliency.Balanced(saliency.GradientTimesInput()),
            saliency.Lrp(attention="cp", epsilon=0.0),
        )
    )
    scale = np.abs(b.values).max()
    assert scale > 1e-3
    np.testing.assert_allclose(a.values, b.values, atol=1e-5 * scale)
    np.testing.assert_allclose(a.score, b.score, rtol=1e-5)


def replace_layers(method, **others):
    """The method with its default layer, where it names one of another model, and with those of other fields it has."""
    if hasattr(method, "method"):
        return type(method)(**(vars(method) | {"method": replace_layers(method.method, **others)}))
    fields = {name: value for name, value in others.items() if hasattr(method, name)}
    return type(method)(**(vars(method) | ({"layer": None} if getattr(method, "layer", None) else {}) | fields))
