"""The documented networks, and what every model promises."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.components import MODELS
from support.networks import draw_variables

from jaxclf.config_io import from_json, read_config, to_json
from jaxclf.errors import UserError
from jaxclf.models import Cnn, MaxoutCnn, Mlp, SimpsonsCnn, summarize
from jaxclf.models.maxout import Maxout
from jaxclf.xla.space_to_depth import space_to_depth

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 12, 12, 1), np.uint8)


@pytest.fixture(params=MODELS, ids=lambda model: f"{type(model).__name__} {getattr(model, 'features', '')}")
def model(request):
    return request.param


@pytest.fixture
def variables(model):
    return draw_variables(model, IMAGES.shape)


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        ("mnist_linear", 7_850),
        ("mnist_mlp", 335_114),
        ("mnist_mlp_wide", 1_192_510),
        ("mnist_mlp_deep", 784 * 512 + 2 * 512 * 512 + 512 * 10 + 3 * 512 + 10),
        ("mnist_cnn", 242_062),
    ],
)
def test_documented_parameter_counts(config, parameters):
    summary = summarize(read_config(config).model, (28, 28, 1))
    assert (summary.parameters, summary.trainable, summary.other) == (parameters, parameters, 0)


@pytest.mark.parametrize("config", ["simpsons_cnn", "simpsons_overfit", "cartoons_cnn", "cartoons_overfit"])
def test_the_simpsons_network_has_its_documented_parameters_and_dropout(config):
    model = read_config(config).model
    assert summarize(model, (64, 64, 3)).parameters == 1_337_296 + 513 * 18
    assert model.dropout == (0.0 if "overfit" in config else 0.4)
    assert SimpsonsCnn(classes=3).dropout == 0.3
    assert summarize(SimpsonsCnn(classes=3), (64, 64, 3)).parameters == 1_337_296 + 513 * 3


def test_logits_are_float32_and_one_a_class(model, variables):
    logits = model.apply(variables, IMAGES)
    assert logits.shape == (4, model.classes)
    assert logits.dtype == jnp.float32
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))


def test_bytes_unit_floats_and_flat_images_agree(model, variables):
    logits = model.apply(variables, IMAGES)
    unit = np.float32(IMAGES) / 255
    np.testing.assert_allclose(logits, model.apply(variables, unit), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(logits, model.apply(variables, IMAGES.reshape(4, -1)))


def test_deterministic_when_not_training_and_random_when_dropping(model, variables):
    np.testing.assert_array_equal(model.apply(variables, IMAGES), model.apply(variables, IMAGES))
    if any(getattr(model, name, 0) for name in ("dropout", "attention_dropout", "drop_path")):
        one, other, same = (
            model.apply(variables, IMAGES, train=True, rngs={"dropout": jax.random.key(seed)}, mutable="batch_stats")[0]
            for seed in (1, 2, 1)
        )
        assert (np.abs(one - other) > 0).any()
        np.testing.assert_array_equal(one, same)


def test_one_trace_serves_equal_models(model, variables):
    traces = 0

    def apply(model, variables, images):
        nonlocal traces
        traces += 1
        return model.apply(variables, images)

    jitted = jax.jit(apply, static_argnums=0)
    jitted(model, variables, IMAGES)
    jitted(model.clone(), variables, IMAGES)
    assert traces == 1


def test_a_model_is_the_same_when_read_from_json(model):
    assert from_json(json.loads(json.dumps(to_json(model)))) == model


def test_kernels_are_glorot_uniform_and_biases_zero():
    variables = Mlp(features=(300,), classes=10).init(jax.random.key(1), np.zeros((1, 28, 28, 1), np.uint8))
    kernel = variables["params"]["dense1"]["kernel"]
    limit = np.sqrt(6 / (784 + 300))  # X. Glorot, Y. Bengio (2010), equation 16
    assert 0.99 * limit < np.abs(kernel).max() <= limit
    assert np.std(kernel) == pytest.approx(limit / np.sqrt(3), rel=0.01)
    assert not variables["params"]["dense1"]["bias"].any()


def test_a_convolution_is_glorot_uniform_over_its_window():
    variables = Cnn(features=(64,), kernel_size=5, dense=(), classes=2).init(
        jax.random.key(1), np.zeros((1, 8, 8, 3), np.uint8)
    )
    limit = np.sqrt(6 / (25 * (3 + 64)))
    kernel = variables["params"]["conv1"]["kernel"]
    assert 0.99 * limit < np.abs(kernel).max() <= limit


@settings(deadline=None, max_examples=15)
@given(side=st.integers(5, 20), kernel=st.integers(1, 5), strides=st.integers(1, 3), padding=st.integers(0, 3))
def test_side_of_a_convolution(side, kernel, strides, padding):
    model = Cnn(features=(1,), dense=(), classes=2, kernel_size=kernel, strides=strides, padding=padding, pool=1)
    conv = next(layer for layer in summarize(model, (side, side, 1)).layers if layer.path == "conv1")
    expected = (side - kernel + 2 * padding) // strides + 1
    assert conv.output_shape == (expected, expected, 1)


def test_summary_shows_flatten_and_pooling_with_their_shapes():
    layers = {layer.path: layer for layer in summarize(read_config("mnist_cnn").model, (28, 28, 1)).layers}
    assert list(layers) == ["conv1", "pool1", "conv2", "pool2", "flatten", "dense1", "logits"]
    assert layers["pool2"].output_shape == (7, 7, 36)
    assert layers["flatten"].output_shape == (1764,)
    assert layers["conv2"].parameters == 5 * 5 * 16 * 36 + 36


def test_summary_counts_what_gradients_do_not_change():
    class WithStatistics(nn.Module):
        @nn.compact
        def __call__(self, images, train=False):
            return nn.BatchNorm(use_running_average=not train)(nn.Dense(4)(images / 255.0))

    summary = summarize(WithStatistics(), (3,))
    assert (summary.trainable, summary.other) == (3 * 4 + 4 + 8, 8)


def test_flops_of_a_dense_layer():
    flops = summarize(Mlp(features=(), classes=10), (100,)).forward_flops
    assert 2 * 100 * 10 <= flops <= 2 * 100 * 10 + 300  # the matrix product, bias and scaling


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"pool": 0}, "pool=0"),
        ({"strides": 0}, "strides=0"),
        ({"features": (4, 0)}, r"features\[1\]=0"),
        ({"padding": -1}, "padding=-1"),
        ({"features": (4,) * 6}, "feature map is empty after pool4"),
    ],
)
def test_sizes_out_of_range_are_named(wrong, message):
    with pytest.raises(UserError, match=message):
        model = Cnn(**({"features": (2,), "dense": (), "classes": 2} | wrong))
        jax.eval_shape(model.init, jax.random.key(0), IMAGES)


def test_images_that_are_neither_square_nor_colour_name_the_fix():
    with pytest.raises(UserError, match=r"\[2, 50\].*square"):
        MODELS[2].init(jax.random.key(0), np.zeros((2, 50), np.uint8))


def test_flat_colour_images():
    model = MODELS[2]
    images = np.random.default_rng(1).integers(0, 256, (2, 8, 8, 3), np.uint8)
    variables = model.init(jax.random.key(0), images)
    np.testing.assert_array_equal(model.apply(variables, images), model.apply(variables, images.reshape(2, -1)))


def test_maxout_is_linear_where_one_piece_is_the_largest():
    x = np.random.default_rng(0).normal(size=(2, 3, 3, 6)).astype(np.float32)
    largest = Maxout(2).apply({}, x)
    np.testing.assert_array_equal(largest, np.maximum(x[..., :3], x[..., 3:]))
    np.testing.assert_array_equal(largest, x.reshape(2, 3, 3, 2, 3).max(axis=3))
    slope = jax.grad(lambda x: Maxout(2).apply({}, x).sum())(x)
    np.testing.assert_array_equal(slope[..., :3], x[..., :3] > x[..., 3:])


def test_space_to_depth_is_in_row_major_order_and_drops_incomplete_blocks():
    x = np.random.default_rng(0).normal(size=(2, 5, 7, 3)).astype(np.float32)
    stacked = space_to_depth(x, 2)
    assert stacked.shape == (2, 2, 3, 12)
    np.testing.assert_array_equal(stacked[:, 1, 2], x[:, 2:4, 4:6].reshape(2, 12))
    np.testing.assert_array_equal(space_to_depth(x, 1), x)


def test_a_convolution_of_blocks_is_a_strided_one():
    """Of twice the side and stride, with the kernel's blocks stacked likewise."""
    random = np.random.default_rng(0)
    images, kernel = random.normal(size=(2, 8, 8, 3)), random.normal(size=(4, 4, 3, 5))
    numbers = ("NHWC", "HWIO", "NHWC")
    strided = jax.lax.conv_general_dilated(images, kernel, (2, 2), "VALID", dimension_numbers=numbers)
    blocks = kernel.reshape(2, 2, 2, 2, 3, 5).transpose(0, 2, 1, 3, 4, 5).reshape(2, 2, 12, 5)
    stacked = jax.lax.conv_general_dilated(
        space_to_depth(images, 2), blocks, (1, 1), "VALID", dimension_numbers=numbers
    )
    np.testing.assert_allclose(stacked, strided, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"blocks": (2,)}, r"\[2, 2, 1\] stages"),
        ({"pieces": 0}, "pieces=0"),
        ({"kernel_sizes": (3, 0)}, r"kernel_sizes\[1\]=0"),
        ({"kernel_sizes": (3, 5)}, "feature map is empty after conv2"),
    ],
)
def test_wrong_stages_of_a_maxout_network_are_named(wrong, message):
    right = {"features": (2, 3), "kernel_sizes": (3, 1), "blocks": (2, 2), "dense": (5,), "classes": 4}
    with pytest.raises(UserError, match=message):
        jax.eval_shape(MaxoutCnn(**(right | wrong)).init, jax.random.key(0), IMAGES)
