"""LRP and balanced gradients of transformers: sweeps over activations, options and models."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.networks import draw_variables
from support.saliency import ACTIVATIONS, Mixer, check_identity

from jaxclf import saliency
from jaxclf.models import ConvNext, ResNet, Vit
from jaxclf.saliency import Balanced, FullGrad, Lrp

RANDOM = np.random.default_rng(0)
VIT = Vit(patch=4, width=8, depth=2, heads=2, classes=3, image_size=(8, 8))
CONVNEXT = ConvNext(depths=(1, 1), features=(4, 6), classes=3, kernel_size=3, layer_scale=0.5)
RESNET = ResNet(depths=(1,), width=4, classes=3, norm="group")
IMAGES = RANDOM.random((2, 8, 8, 1), np.float32)
MIXERS = [*map(Mixer, (*ACTIVATIONS, "swiglu")), Mixer("relu", nn.RMSNorm), Mixer("relu", lambda: nn.GroupNorm(4))]


@pytest.mark.parametrize("model", [*MIXERS, VIT, CONVNEXT, RESNET], ids=str)
def test_balanced_gradient_times_input_is_lrp_with_constant_attention(model):
    check_identity(model, IMAGES)


@pytest.mark.parametrize("model", [*MIXERS, VIT, CONVNEXT, RESNET], ids=str)
def test_balanced_full_gradients_and_deep_lift_are_complete(model):
    """Plain full gradients are not, except of ReLU networks without normalization."""
    variables = draw_variables(model, IMAGES.shape)
    for method in (Balanced(FullGrad()), saliency.DeepLift()):
        a = method(model, variables, IMAGES, 1)
        scale = np.abs(a.values).sum(axis=(1, 2, 3)).max()
        np.testing.assert_allclose(a.delta, np.zeros(2), atol=1e-5 * max(scale, 1))
    assert np.abs(FullGrad()(model, variables, IMAGES, 1).delta).min() > 1e-3


def test_balanced_class_activation_maps_sum_to_the_logit():
    """Without biases behind the layer, with gradients place by place."""
    variables = jax.tree_util.tree_map_with_path(
        lambda path, x: 0 * x if path[-1].key == "bias" else x, draw_variables(CONVNEXT, IMAGES.shape)
    )
    a = Balanced(saliency.HiResCam(relu=False))(CONVNEXT, variables, IMAGES, 1)
    np.testing.assert_allclose(a.values.sum(axis=(1, 2, 3)), a.score, rtol=1e-4)


def test_options_differ_where_they_should():
    variables = draw_variables(VIT, IMAGES.shape)
    plain, constant, residual = (
        np.asarray(method(VIT, variables, IMAGES, 1).values)
        for method in (Lrp(), Lrp(attention="cp"), Lrp(residual_gamma=1.0))
    )
    scale = np.abs(plain).max()
    assert np.abs(plain - constant).max() > 0.01 * scale
    assert np.abs(plain - residual).max() > 0.01 * scale
    assert plain.shape == IMAGES.shape


@pytest.mark.parametrize(
    "model",
    [
        VIT.clone(qk_norm=True, layer_scale=0.5, remat=True),
        CONVNEXT,
    ],
    ids=["vit", "convnext"],
)
def test_it_can_be_compiled_and_differentiated_through(model):
    variables = draw_variables(model, IMAGES.shape)
    method = Lrp(residual_gamma=1.0, epsilon=0.0)
    whole = method(model, variables, IMAGES, np.array([0, 2]))

    def measure(variables):
        return jnp.abs(method(model, variables, IMAGES, jnp.array([0, 2])).values).sum()

    total, gradients = jax.jit(jax.value_and_grad(measure))(variables)
    np.testing.assert_allclose(total, np.abs(whole.values).sum(), rtol=1e-3)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    assert sum(float(np.abs(leaf).sum()) for leaf in jax.tree.leaves(gradients)) > 0


def test_a_network_of_one_function_is_explained_like_its_modules():
    """Attention as XLA has it in one function, written with einsum, and with the softmax as exponentials."""
    weights = RANDOM.normal(size=(3, 4, 8)).astype(np.float32)

    def explain(attend, **options):
        def model(_, x):
            return attend(*(x.reshape(2, 16, 4) @ w for w in weights)).mean(axis=1)

        return np.asarray(Lrp(**options)(model, {}, IMAGES, 3).values)

    def attend_at_once(q, k, v):
        heads = (x.reshape(2, 16, 2, 4) for x in (q, k, v))
        return jax.nn.dot_product_attention(*heads, implementation="xla").reshape(2, 16, 8)

    def attend_by_einsum(q, k, v, softmax=jax.nn.softmax):
        q, k, v = (x.reshape(2, 16, 2, 4) for x in (q, k, v))
        weights = softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) / 2)
        return jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(2, 16, 8)

    def softmax(x):
        e = jnp.exp(x - x.max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True)

    for options in ({}, {"attention": "cp"}):
        expected = explain(attend_by_einsum, **options)
        scale = np.abs(expected).max()
        for attend in (attend_at_once, lambda *x: attend_by_einsum(*x, softmax=softmax)):
            np.testing.assert_allclose(explain(attend, **options), expected, atol=1e-4 * scale)
