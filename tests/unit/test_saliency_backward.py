"""Guided backpropagation, Deconvnet, Guided Grad-CAM and FullGrad: peers' numbers, and exact decompositions."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.networks import draw_variables

from jaxclf import saliency
from jaxclf.errors import UserError
from jaxclf.models import Cnn, Mlp
from jaxclf.saliency.methods.full_grad import compute_overlaps


class ConvNetOneConv(nn.Module):
    """captum's BasicModel_ConvNet_One_Conv (captum/testing/helpers/basic_models.py), whose channels come first."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(2, (3, 3), padding="VALID", name="conv1")(x)
        x = Relu(name="relu1")(x)
        x = x.transpose(0, 3, 1, 2).reshape(-1, 8)
        return nn.relu(nn.Dense(4, name="fc1")(x))


class Relu(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.relu(x)


ONE_CONV = {
    "params": {
        "conv1": {"kernel": np.ones((3, 3, 1, 2), np.float32), "bias": np.array([-50, -75], np.float32)},
        "fc1": {"kernel": np.repeat([1, -1], (5, 3)).astype(np.float32)[:, None] * np.ones((1, 4), np.float32),
                "bias": np.zeros(4, np.float32)},
    }
}  # fmt: skip
SIXTEEN = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)


@pytest.mark.parametrize(
    ("method", "expected"),
    [  # captum, tests/attr: test_guided_backprop.py, test_deconvolution.py, test_guided_grad_cam.py
        (saliency.Gradient(), [[0, 1, 1, 1], [0, 1, 1, 1], [0, 1, 1, 1], [0, 0, 0, 0]]),
        (saliency.GuidedBackprop(), [[0, 1, 1, 1], [1, 3, 3, 2], [1, 3, 3, 2], [1, 2, 2, 1]]),
        (saliency.Deconvnet(), [[2, 3, 3, 1], [3, 5, 5, 2], [3, 5, 5, 2], [1, 2, 2, 1]]),
        (
            saliency.GuidedGradCam("relu1"),
            [[0, 0, 4, 4], [0, 0, 12, 8], [28, 84, 97.5, 65], [28, 56, 65, 32.5]],
        ),
    ],
    ids=str,
)  # fmt: skip
def test_captum_s_numbers_of_one_convolution(method, expected):
    a = method(ConvNetOneConv(), ONE_CONV, SIXTEEN, 0)
    np.testing.assert_allclose(a.score, [54], rtol=1e-6)
    np.testing.assert_allclose(a.values[0, ..., 0], expected, rtol=1e-6, atol=1e-6)


def test_guided_backprop_meets_each_condition():
    """Two units, one on and one off, each with a positive and a negative weight above it."""
    w = np.array([[1.0, -1.0, 1.0, -1.0]], np.float32)
    signs = np.array([[1.0], [1.0], [-1.0], [-1.0]], np.float32)

    def passed(method):
        """What comes back to the input of a ReLU, by itself: an input for each unit."""
        return method(lambda _, x: jax.nn.relu(x) @ signs, {}, w).values[0]

    np.testing.assert_array_equal(passed(saliency.Gradient()), [1, 0, -1, 0])
    np.testing.assert_array_equal(passed(saliency.GuidedBackprop()), [1, 0, 0, 0])
    np.testing.assert_array_equal(passed(saliency.Deconvnet()), [1, 1, 0, 0])


def test_guided_grad_cam_is_the_product():
    """The image's height and width, whatever the layer's, and the map repeated, not blurred."""
    model = Cnn(features=(3,), dense=(5,), classes=3)
    images = np.random.default_rng(0).random((2, 8, 8, 1), np.float32)
    variables = draw_variables(model, images.shape)
    cam = saliency.GradCam("pool1", relu=False)(model, variables, images, 1).values
    guided = saliency.GuidedBackprop()(model, variables, images, 1).values
    a = saliency.GuidedGradCam("pool1", relu=False)(model, variables, images, 1)
    np.testing.assert_allclose(a.values, guided * cam.repeat(2, axis=1).repeat(2, axis=2), rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(a.evaluations, [2, 2])


class Bits(nn.Module):
    """Everything FullGrad is exact for: BatchNorm, branches, functions with biases, caps, both kinds of pooling."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.BatchNorm(use_running_average=True)(nn.Conv(3, (3, 3))(x))
        x = nn.max_pool(nn.relu(x), (2, 2), (2, 2))
        x = x + nn.relu6(3 * nn.Conv(3, (3, 3))(x)) - 0.2
        x = jnp.concatenate([nn.avg_pool(x, (3, 3), (1, 1)), jnp.full((*x.shape[:1], 2, 2, 1), 0.7)], axis=-1)
        x = nn.hard_tanh(nn.Dense(6)(jnp.maximum(x, 0.1).mean(axis=(1, 2))))
        return nn.Dense(4)(nn.leaky_relu(x))


@pytest.mark.parametrize("score", ["logit", "margin"])
def test_fullgrad_sums_to_the_score(score):
    images = np.random.default_rng(0).random((3, 8, 8, 2), np.float32)
    variables = draw_variables(Bits(), images.shape)
    a = saliency.all_classes(saliency.FullGrad(score=score))(Bits(), variables, images)
    assert np.abs(a.values.sum(axis=(2, 3, 4))).min() > 1e-3
    np.testing.assert_allclose(a.delta, np.zeros((3, 4)), atol=1e-5)
    gradients = saliency.all_classes(saliency.GradientTimesInput(score=score))(Bits(), variables, images)
    assert np.abs(gradients.values.sum(axis=(2, 3, 4)) - a.score).max() > 0.1


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000))
def test_fullgrad_sums_to_the_score_of_any_relu_network(seed):
    model, images = Mlp((5, 4), 3), np.random.default_rng(seed).random((4, 6), np.float32)
    a = saliency.FullGrad()(model, draw_variables(model, images.shape, seed), images)
    np.testing.assert_allclose(a.delta, np.zeros(4), atol=1e-5 * float(np.abs(a.values).sum(axis=1).max()))


def test_fullgrad_says_what_is_missing():
    """A probability is no such network: its delta is what the linear part of it leaves out."""
    model, images = Mlp((), 3), np.random.default_rng(0).random((2, 4), np.float32)
    variables = draw_variables(model, images.shape)
    a = saliency.FullGrad(score="probability")(model, variables, images, 0)
    w, b = variables["params"]["logits"]["kernel"], variables["params"]["logits"]["bias"]
    p = jax.nn.softmax(images @ w + b[None])
    owed = p[:, 0] * ((images @ w + b[None])[:, 0] - (p * (images @ w + b[None])).sum(axis=1))
    np.testing.assert_allclose(a.delta, owed - p[:, 0], rtol=1e-4)


def test_fullgrad_puts_what_a_bias_owes_below_its_place():
    """That of a convolution's bias, from the gradient by its outputs; that of a dense layer, everywhere."""
    random = np.random.default_rng(0)
    images = random.random((2, 6, 6, 2), np.float32)
    kernel, bias = random.normal(size=(3, 3, 2, 3)).astype(np.float32), np.array([0.5, -0.2, 0.1], np.float32)
    head, last = random.normal(size=(27, 2)).astype(np.float32), np.array([0.3, -0.4], np.float32)

    def features(images):
        dimensions = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(images, kernel, (2, 2), "SAME", dimension_numbers=dimensions)

    def above(z):
        return jax.nn.relu(z + bias[None, None, None]).reshape(len(z), -1) @ head + last[None]

    by_outputs = jax.grad(lambda z: above(z)[:, 1].sum())(features(images))
    places = (by_outputs * bias[None, None, None]).sum(axis=-1).repeat(2, axis=1).repeat(2, axis=2) / 4
    by_pixels = jax.grad(lambda x: above(features(x))[:, 1].sum())(images)
    a = saliency.FullGrad()(lambda _, images: above(features(images)), {}, images, 1)
    np.testing.assert_allclose(
        a.values, images * by_pixels + places[..., None] / 2 + last[1] / 72, rtol=1e-4, atol=1e-5
    )


def test_equal_places_share_pixels_in_order():
    np.testing.assert_allclose(compute_overlaps(2, 4), [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]])
    np.testing.assert_allclose(compute_overlaps(2, 3), [[2 / 3, 1 / 3, 0], [0, 1 / 3, 2 / 3]])
    np.testing.assert_allclose(compute_overlaps(3, 2), [[1, 0], [0.5, 0.5], [0, 1]])
    np.testing.assert_allclose(compute_overlaps(5, 7).sum(axis=1), np.ones(5))
    np.testing.assert_allclose(compute_overlaps(5, 7).sum(axis=0), np.full(7, 5 / 7))


def test_flat_images_and_one_channel_agree():
    images = np.random.default_rng(0).random((3, 6, 6, 1), np.float32)
    model = Mlp((5,), 3)
    variables = draw_variables(model, images.shape)
    flat = saliency.FullGrad()(model, variables, images.reshape(3, -1)).values
    np.testing.assert_allclose(saliency.FullGrad()(model, variables, images).values.reshape(3, -1), flat, atol=1e-6)


class Smooth(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        return jnp.tanh(nn.Conv(2, (3, 3))(x)).mean(axis=(1, 2))


def test_nothing_to_guide_is_an_error_in_guided_grad_cam_too():
    variables = Smooth().init(jax.random.key(0), SIXTEEN)
    assert saliency.GradCam()(Smooth(), variables, SIXTEEN).values.shape == (1, 4, 4, 1)
    with pytest.raises(UserError, match="has no ReLU"):
        saliency.GuidedGradCam()(Smooth(), variables, SIXTEEN)


def test_the_maximum_of_a_variance_and_zero_is_no_relu():
    """Flax and Equinox write it against rounding: guided backpropagation would drop its negative gradients."""
    weights = np.random.default_rng(0).standard_normal((16, 3), np.float32)

    def apply(bound, variables, images):
        x = images.reshape(images.shape[0], -1)
        deviation = jnp.sqrt(bound(jnp.var(x, axis=1, keepdims=True)) + 1e-3)
        fast = bound(jnp.mean(x**2, axis=1, keepdims=True) - jnp.mean(x, axis=1, keepdims=True) ** 2)
        return jax.nn.relu(x / deviation) @ variables + jnp.sqrt(fast)

    bounded, free = (partial(apply, bound) for bound in (lambda x: jnp.maximum(x, 0.0), lambda x: x))
    for method in (saliency.GuidedBackprop(), saliency.Deconvnet()):
        values = [method(model, weights, SIXTEEN / 16, 1).values for model in (bounded, free)]
        np.testing.assert_allclose(*values, atol=1e-6)
