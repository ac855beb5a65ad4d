"""Residual networks: the published sizes, what a block starts as, and group normalization."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.networks import draw_variables

from jaxclf.errors import UserError
from jaxclf.models import IMAGENET, ResNet, summarize
from jaxclf.models.summary import count_parameters

SMALL = ResNet(depths=(1, 1), width=4, classes=3)
GROUPS = SMALL.clone(norm="group", block="bottleneck")
SHAPE = (2, 18, 14, 5)
IMAGES = np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8)


def find_shapes(model, shape):
    return {layer.path: layer.output_shape for layer in summarize(model, shape).layers}


@pytest.mark.parametrize(
    ("name", "parameters"), [(18, 11_689_512), (34, 21_797_672), (50, 25_557_032), (101, 44_549_160)]
)
def test_published_networks_have_their_parameters(name, parameters):
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.uint8)
    variables = jax.eval_shape(ResNet.named(name, classes=1000).init, jax.random.key(0), images)
    assert count_parameters(variables["params"]) == parameters


def test_sides_are_halved_by_the_stem_the_pooling_and_all_stages_but_the_first():
    shapes = find_shapes(ResNet.named(18, classes=10), (224, 200, 3))
    expected = {
        "stem": (112, 100, 64),
        "pool": (56, 50, 64),
        "stage1_block2": (56, 50, 64),
        "stage4_block2": (7, 7, 512),
    }
    assert {path: shapes[path] for path in expected} == expected


def test_small_images_keep_their_sides_until_the_second_stage():
    shapes = find_shapes(SMALL.clone(stem="cifar"), (32, 32, 3))
    assert "pool" not in shapes
    assert [shapes[path][0] for path in ("stem", "stage1_block1", "stage2_block1")] == [32, 32, 16]


def test_the_last_scale_of_a_block_is_initialized_with_zeros():
    params = SMALL.init(jax.random.key(0), IMAGES)["params"]
    for name, block in params.items():
        if name.startswith("stage"):
            scales = {part: float(np.unique(tree["norm"]["scale"]).item()) for part, tree in block.items()}
            assert scales == {"conv1": 1.0, "conv2": 0.0} | ({"shortcut": 1.0} if "shortcut" in block else {})


def test_kernels_have_the_variance_of_their_outputs():
    model = ResNet(depths=(1,), width=128, classes=0, stem="cifar")
    kernel = model.init(jax.random.key(0), IMAGES)["params"]["stage1_block1"]["conv2"]["conv"]["kernel"]
    assert np.std(kernel) == pytest.approx(np.sqrt(2 / (9 * 128)), rel=0.01)  # K. He et al. (2015)


def test_without_classes_the_features_of_the_logits_are_returned():
    variables = draw_variables(SMALL, SHAPE)
    head = variables["params"]["logits"]
    rest = variables | {"params": {name: tree for name, tree in variables["params"].items() if name != "logits"}}
    features = SMALL.clone(classes=0).apply(rest, IMAGES)
    assert features.shape == (2, 8)
    logits = features @ head["kernel"] + head["bias"][None]
    np.testing.assert_allclose(SMALL.apply(variables, IMAGES), logits, rtol=1e-5)


def test_with_group_normalization_an_image_does_not_depend_on_the_others():
    variables = draw_variables(GROUPS, SHAPE)
    assert set(variables) == {"params"}
    logits = jax.jit(partial(GROUPS.apply, train=True))(variables, IMAGES)
    other = jax.jit(GROUPS.apply)(variables, np.stack([IMAGES[0], IMAGES[0]]))
    np.testing.assert_allclose(logits[0], other[0], rtol=1e-4, atol=1e-5)


def test_with_group_normalization_kernels_are_standardized():
    """So their size and mean do not matter."""
    variables = draw_variables(GROUPS, SHAPE)
    changed = jax.tree.map_with_path(lambda path, leaf: 3 * leaf + 1 if path[-2].key == "conv" else leaf, variables)
    apply = jax.jit(GROUPS.apply)
    np.testing.assert_allclose(apply(changed, IMAGES), apply(variables, IMAGES), rtol=1e-3, atol=1e-4)


def test_images_are_normalized_first():
    images = np.float32(IMAGES[..., :3]) / 255
    variables = draw_variables(SMALL, images.shape)
    found = SMALL.clone(normalize=IMAGENET).apply(variables, images)
    np.testing.assert_allclose(found, SMALL.apply(variables, IMAGENET(images)), rtol=1e-5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"depths": ()}, r"depths=\(\)"),
        ({"depths": (1, 0)}, r"depths\[1\]=0"),
        ({"width": 0}, "width=0"),
        ({"classes": -1}, "classes=-1"),
        ({"batch_norm_group": -1}, "batch_norm_group=-1"),
        ({"drop_path": 1.0}, "drop_path=1.0"),
    ],
)
def test_wrong_values_are_named(wrong, message):
    with pytest.raises(UserError, match=message):
        ResNet(**({"depths": (1,), "classes": 2} | wrong))


def test_a_network_that_was_not_published_names_those_that_were():
    with pytest.raises(UserError, match=r"no ResNet 20; choose from 18, 34, 50, 101"):
        ResNet.named(20, classes=2)
