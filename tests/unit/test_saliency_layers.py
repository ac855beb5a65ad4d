"""Layers by their paths: which there are, under transformations too, and what is said of others."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.networks import CLASSES, IMAGES, WRAPS, B, Net, Relu, draw_variables

from jaxclf import saliency
from jaxclf.errors import UserError
from jaxclf.models import Cnn, Mlp
from jaxclf.saliency.calls import trace_calls
from jaxclf.saliency.query import Query


class Twins(nn.Module):
    """Two blocks alike: under nn.jit the trace of the first serves the second."""

    wrap: str = "none"

    @nn.compact
    def __call__(self, x, train=False):
        for name in ("first", "second"):
            x = WRAPS[self.wrap](1, name=name)(x)
        return nn.Dense(CLASSES, name="logits")(x.reshape(x.shape[0], -1))


class Reused(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        relu = Relu(name="relu")
        x = relu(nn.Conv(2, (3, 3), name="conv1")(x))
        x = relu(nn.Conv(2, (3, 3), name="conv2")(x))
        return nn.Dense(CLASSES, name="logits")(x.mean(axis=(1, 2)))


class Looped(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        def body(block, x, _):
            return nn.relu(block(x)), None

        loop = nn.scan(body, variable_axes={"params": 0}, split_rngs={"params": True}, length=2)
        x, _ = loop(nn.Conv(1, (3, 3), name="inside"), x, None)
        x = nn.Conv(2, (3, 3), name="after")(x)
        return nn.Dense(CLASSES, name="logits")(x.mean(axis=(1, 2)))


def test_no_layer_is_the_last_spatial_one():
    variables = draw_variables(Net())
    for cls in (saliency.HiResCam, saliency.ScoreCam):
        last, named = (cls(layer)(Net(), variables, IMAGES).values for layer in (None, "second"))
        np.testing.assert_array_equal(last, named)
    model = Cnn(features=(2, 3), dense=(4,), classes=CLASSES)
    last, named = (saliency.GradCam(layer)(model, draw_variables(model), IMAGES).values for layer in (None, "pool2"))
    np.testing.assert_array_equal(last, named)


def test_an_exponential_that_is_no_softmax_is_no_attention():
    class Exponential(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            x = jnp.exp(nn.Conv(x.shape[2], (3, 3), name="conv1")(x))  # its last two axes are equal
            return nn.Dense(CLASSES, name="logits")(nn.Conv(2, (3, 3), name="conv2")(x).mean(axis=(1, 2)))

    calls, attentions = trace_calls(Exponential(), draw_variables(Exponential()), IMAGES)
    assert [call.path for call in calls][:2] == ["conv1", "conv2"] and attentions == 0


@pytest.mark.parametrize("wrap", ["remat", "jit"])
def test_layers_inside_transformed_modules_are_layers_too(wrap):
    variables = draw_variables(Net())
    for method in (saliency.HiResCam("first/conv", relu=False), saliency.ScoreCam("second/conv")):
        plain, wrapped = (method(Net(wrap=kind), variables, IMAGES, 0).values for kind in ("none", wrap))
        np.testing.assert_allclose(wrapped, plain, atol=1e-6)


@pytest.mark.parametrize("wrap", ["remat", "jit"])
def test_of_two_modules_alike_both_are_layers(wrap):
    variables = jax.tree.map(np.abs, draw_variables(Twins()))  # positive, so that no ReLU is dead
    for layer in (None, "second/conv", "first/conv"):
        method = saliency.HiResCam(layer, relu=False)
        plain, wrapped = (method(Twins(kind), variables, IMAGES, 0).values for kind in ("none", wrap))
        assert np.abs(plain).max() > 0.01
        np.testing.assert_allclose(wrapped, plain, atol=1e-6 * float(np.abs(plain).max()))


@pytest.mark.parametrize(
    "model, layer, message",
    [
        (
            Net(),
            "third",
            r"no layer 'third': choose one of first/conv, first/relu, first, second/conv, second/relu, second\s",
        ),
        (Net(), "logits", r"layer 'logits' has the output shape \[3, 4\]: expected \[b, h, w, c\]"),
        (Reused(), "relu", r"layer 'relu' is called 2 times: expected once; choose one of conv1, conv2\s"),
        (Reused(), None, "layer 'relu' is called 2 times"),
        (Looped(), "inside", r"no layer 'inside': choose one of after\s"),
        (Mlp(features=(3,), classes=CLASSES), None, r"no layer has an output \[b, h, w, c\], .* are flatten, dense1, "),
    ],
)
def test_a_layer_that_will_not_do_is_named(model, layer, message):
    variables = draw_variables(model)
    for cls in (saliency.GradCam, saliency.ScoreCam):
        with pytest.raises(UserError, match=message):
            cls(layer)(model, variables, IMAGES)


def test_layers_called_once_beside_others_will_do():
    for model, layer in ((Reused(), "conv2"), (Looped(), "after")):
        a = saliency.HiResCam(layer, relu=False)(model, draw_variables(model), IMAGES)
        assert a.values.shape == (B, 6, 6, 1)
        assert np.abs(a.values).max() > 0


def test_what_has_no_layers_or_no_sides_is_named():
    variables = draw_variables(Net())

    def function(variables, images):
        return Net().apply(variables, images)

    with pytest.raises(UserError, match="function is not a Linen module"):
        saliency.GradCam()(function, variables, IMAGES)
    model = Cnn(features=(2,), dense=(), classes=CLASSES)
    flat = IMAGES.reshape(B, -1)
    variables = draw_variables(model, flat.shape)
    assert saliency.GradCam("conv1")(model, variables, flat).values.shape == (B, 6, 6, 1)
    for method in (saliency.GradCam(upsample="nearest"), saliency.ScoreCam()):
        with pytest.raises(UserError, match=r"images of shape \[3, 36\] have no height and width"):
            method(model, variables, flat)


def test_the_model_that_a_query_rewrites_is_explained():
    """Rewritten so that all it gives is doubled: logits, and with them gradients, and the layer's output."""
    variables = draw_variables(Net())
    query = Query(Net(), variables, jnp.asarray(IMAGES), None, True, "logit", None, jnp.zeros_like(IMAGES), 8)

    def doubled(function):
        return lambda *arguments: jax.tree.map(lambda x: 2 * x, function(*arguments))

    plain, twice = (saliency.GradCam().explain(q) for q in (query, query.replace(rewrite=doubled)))
    np.testing.assert_allclose(twice.score, 2 * plain.score, atol=1e-6)
    np.testing.assert_allclose(twice.values, 4 * plain.values, atol=1e-6)
    assert plain.values.max() > 0.01
