"""EfficientNet-Lite: the published sizes, shapes and what is dropped."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclf.errors import UserError
from jaxclf.models import EfficientNetLite, summarize
from jaxclf.models.summary import count_parameters

SMALL = {"depths": (1, 2), "features": (4, 4), "kernel_sizes": (3, 5), "strides": (1, 2), "expansions": (1, 2)}


def trace_variables(model, shape):
    return jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.uint8))


@pytest.mark.parametrize(
    ("name", "parameters"), [(0, 4_652_008), (1, 5_416_680), (2, 6_092_072), (3, 8_197_096), (4, 13_006_568)]
)
def test_published_networks_have_their_parameters(name, parameters):
    variables = trace_variables(EfficientNetLite.named(name, classes=1000), (1, 32, 32, 3))
    assert count_parameters(variables["params"]) == parameters


def test_sides_are_halved_by_the_stem_and_stages_with_stride_2_and_odd_ones_rounded_up():
    layers = summarize(EfficientNetLite.named(0, classes=10), (224, 202, 3)).layers
    shapes = {layer.path: layer.output_shape for layer in layers}
    expected = {
        "stem": (112, 101, 32), "stage1_block1": (112, 101, 16), "stage2_block2": (56, 51, 24),
        "stage3_block2": (28, 26, 40), "stage5_block3": (14, 13, 112),
        "stage7_block1": (7, 7, 320), "top": (7, 7, 1280),
    }  # fmt: skip
    assert {path: shapes[path] for path in expected} == expected


def test_only_blocks_that_keep_the_shape_are_skipped():
    model = EfficientNetLite(**SMALL, classes=2, drop_path=0.5, stem_features=6)
    images, paths = np.zeros((2, 16, 16, 1), np.uint8), []

    def record(call, args, kwargs, context):
        paths.append("/".join(context.module.path))
        return call(*args, **kwargs)

    with nn.intercept_methods(record):
        jax.eval_shape(lambda key: model.init({"params": key, "dropout": key}, images, train=True), jax.random.key(0))
    assert [path for path in paths if path.endswith("drop")] == ["stage2_block2/drop"]


def test_depthwise_kernels_have_the_variance_of_their_window():
    model = EfficientNetLite((1,), (8,), 2, (5,), (1,), (64,), stem_features=64)
    params = model.init(jax.random.key(0), np.zeros((1, 4, 4, 1), np.uint8))["params"]["stage1_block1"]
    assert params["depthwise"]["conv"]["kernel"].shape == (5, 5, 1, 4096)
    assert np.std(params["depthwise"]["conv"]["kernel"]) == pytest.approx(np.sqrt(2 / 25), rel=0.02)
    assert np.std(params["expand"]["conv"]["kernel"]) == pytest.approx(np.sqrt(2 / 4096), rel=0.02)


def test_activations_are_between_0_and_6_and_what_is_cut_has_no_gradient():
    x = jnp.asarray([[[[-1.0, 0.0, 3.0, 7.0]]]])
    np.testing.assert_array_equal(nn.relu6(x), [[[[0, 0, 3, 6]]]])
    np.testing.assert_array_equal(jax.grad(lambda x: nn.relu6(x).sum())(x), [[[[0, 0, 1, 0]]]])


def test_without_classes_pooled_features_are_returned():
    model = EfficientNetLite(**SMALL, classes=0, top_features=7)
    images = np.zeros((2, 16, 16, 5), np.uint8)
    assert jax.eval_shape(model.apply, trace_variables(model, images.shape), images).shape == (2, 7)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"depths": (1,)}, r"have \[1, 2, 2, 2, 2\] stages"),
        ({"expansions": (1, 0)}, r"expansions\[1\]=0"),
        ({"top_features": 0}, "top_features=0"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"drop_path": -0.1}, "drop_path=-0.1"),
        ({"classes": -1}, "classes=-1"),
    ],
)
def test_wrong_values_are_named(wrong, message):
    with pytest.raises(UserError, match=message):
        EfficientNetLite(**(SMALL | {"classes": 2} | wrong))


def test_a_network_that_was_not_published_names_those_that_were():
    with pytest.raises(UserError, match=r"no EfficientNetLite 5; choose from 0, 1, 2, 3, 4"):
        EfficientNetLite.named(5, classes=2)
