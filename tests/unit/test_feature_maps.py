"""What is shown of a network's inside is what the network computes."""

import jax
import numpy as np
import pytest
from support.components import MODELS

from jaxclf.errors import UserError
from jaxclf.models import Cnn, MaxoutCnn, Mlp
from jaxclf.models.feature_maps import compute_feature_maps, get_filters, get_pixel_weights
from jaxclf.models.features import compute_features

MNIST_CNN = Cnn(features=(16, 36), dense=(128,), classes=10, kernel_size=5)


def initialize(model, images):
    return jax.jit(model.init)(jax.random.key(0), images)


def test_the_documented_network_has_16_and_36_maps_each_its_filter_over_the_image(digits):
    images = digits.test.images[:3]
    variables = initialize(MNIST_CNN, images)
    maps, kernels = compute_feature_maps(MNIST_CNN, variables, images), get_filters(variables)
    assert {name: value.shape for name, value in maps.items()} == {"conv1": (3, 28, 28, 16), "conv2": (3, 14, 14, 36)}
    assert {name: value.shape for name, value in kernels.items()} == {"conv1": (5, 5, 1, 16), "conv2": (5, 5, 16, 36)}
    window = images[1, 10:15, 7:12] / 255  # around place 12, 9; the bias is zero at first
    np.testing.assert_allclose(maps["conv1"][1, 12, 9], np.einsum("hwc,hwco->o", window, kernels["conv1"]), atol=1e-5)


@pytest.mark.parametrize("model", [MNIST_CNN, MaxoutCnn((4, 6), (3, 2), (2, 2), (8,), classes=10)])
def test_every_convolution_shown_has_its_filters(model, digits):
    images = digits.test.images[:1]
    variables = initialize(model, images)
    maps, kernels = compute_feature_maps(model, variables, images), get_filters(variables)
    assert list(maps) == list(kernels)
    assert all(maps[name].shape[-1] == kernels[name].shape[-1] for name in maps)


def test_the_weights_of_a_linear_classifier_are_its_gradients_by_pixel(digits):
    model, images = Mlp(features=(), classes=10), digits.test.images[:1] / np.float32(255)
    variables = initialize(model, images)
    weights = get_pixel_weights(variables, (28, 28, 1))
    gradient = jax.grad(lambda images: model.apply(variables, images)[0, 3])(images)
    np.testing.assert_allclose(weights[..., 3], gradient[0], atol=1e-6)
    assert not compute_feature_maps(model, variables, images)


def test_other_networks_have_no_weights_by_pixel(digits):
    for model in (MNIST_CNN, Mlp(features=(5,), classes=10)):
        assert get_pixel_weights(initialize(model, digits.test.images[:1]), (28, 28, 1)) is None


@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
def test_the_head_makes_the_logits_from_the_features(model):
    images = np.random.default_rng(0).random((2, *getattr(model, "image_size", (12, 12)), 3), np.float32)
    variables = initialize(model, images)
    features = jax.jit(lambda variables, images: compute_features(model, variables, images))(variables, images)
    logits = jax.jit(model.apply)(variables, images)
    assert features.dtype == np.float32
    kernel, bias = (np.asarray(variables["params"]["logits"][name]) for name in ("kernel", "bias"))
    np.testing.assert_allclose(np.asarray(features) @ kernel + bias, logits, atol=1e-5)


def test_features_of_a_layer_are_averaged_over_positions(digits):
    images = digits.test.images[:2]
    variables = initialize(MNIST_CNN, images)
    maps = compute_feature_maps(MNIST_CNN, variables, images)
    for layer, output in maps.items():
        features = compute_features(MNIST_CNN, variables, images, layer)
        np.testing.assert_allclose(features, output.mean((1, 2)), atol=1e-5)
    with pytest.raises(UserError, match=r"no layer 'conv3'.*choose one of conv1, pool1, conv2"):
        compute_features(MNIST_CNN, variables, images, "conv3")
