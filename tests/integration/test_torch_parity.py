"""Networks of timm and torchvision with random weights: their logits and all gradients, in float64.

The numbers were made with PyTorch by tests/fixtures/draw_torch.py.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from support.torch_weights import (
    assert_close,
    convert_weights,
    map_array,
    map_batch_norm,
    map_conv,
    map_dense,
    map_norm,
    read_fixture,
)

from jaxclf.models import ConvNext, EfficientNetLite, ResNet, Vit
from jaxclf.models.batch_norm import SUMS
from jaxclf.models.positions import compute_sin_cos_positions, resize_positions

VIT = Vit(patch=4, width=12, depth=2, heads=3, classes=5, image_size=(16, 16), dtype="float64")
VIT_MEAN = VIT.clone(pool="mean", qk_norm=True, layer_scale=0.1, mlp_ratio=2.0)
CONVNEXT = ConvNext(depths=(1, 1, 2, 1), features=(4, 6, 6, 8), classes=5, dtype="float64")
RESNET = ResNet(depths=(2, 1), width=6, classes=5, dtype="float64")
BOTTLENECK = ResNet(depths=(1, 2), width=4, block="bottleneck", classes=5, dtype="float64")
EFFICIENTNET = EfficientNetLite(
    depths=(1, 2, 1), features=(8, 8, 16), classes=5, kernel_sizes=(3, 5, 3), strides=(1, 2, 2), expansions=(1, 3, 6),
    stem_features=6, top_features=12, dtype="float64",
)  # fmt: skip


def map_timm_vit(model):
    """The table of a Vit of timm."""
    table = map_array("positions", "pos_embed", (-1, model.width)) | map_conv("patch_embedding", "patch_embed.proj")
    if model.pool == "class_token":
        table |= map_array("class_token", "cls_token", (-1,))
    for i in range(model.depth):
        ours, theirs = f"block{i + 1}", f"blocks.{i}"
        for j in (1, 2):
            table |= map_norm(f"{ours}/norm{j}", f"{theirs}.norm{j}")
            table |= map_dense(f"{ours}/mlp/dense{j}", f"{theirs}.mlp.fc{j}")
            if model.layer_scale is not None:
                table |= map_array(f"{ours}/scale{j}/scale", f"{theirs}.ls{j}.gamma")
        table |= map_attention(f"{ours}/attention", f"{theirs}.attn", model)
    return table | map_norm("norm", "norm") | map_dense("logits", "head")


def map_attention(path, name, model):
    """The rows of attention: queries, keys and values are one dense layer in timm."""
    table = map_dense(f"{path}/out", f"{name}.proj")
    for i, part in enumerate(("query", "key", "value")):
        for ours, theirs in (("kernel", "weight"), ("bias", "bias")):
            take = lambda array, i=i: np.split(array, 3)[i].T  # noqa: E731
            table[f"params/{path}/{part}/{ours}"] = f"{name}.qkv.{theirs}", take
    if model.qk_norm:
        table |= map_norm(f"{path}/query_norm", f"{name}.q_norm") | map_norm(f"{path}/key_norm", f"{name}.k_norm")
    return table


def map_timm_convnext(model):
    """The table of a ConvNext of timm."""
    table = map_conv("stem/conv", "stem.0") | map_norm("stem/norm", "stem.1")
    for i, depth in enumerate(model.depths):
        if i:
            ours, theirs = f"stage{i + 1}_downsample", f"stages.{i}.downsample"
            table |= map_norm(f"{ours}/norm", f"{theirs}.0") | map_conv(f"{ours}/conv", f"{theirs}.1")
        for j in range(depth):
            ours, theirs = f"stage{i + 1}_block{j + 1}", f"stages.{i}.blocks.{j}"
            table |= map_conv(f"{ours}/conv", f"{theirs}.conv_dw") | map_norm(f"{ours}/norm", f"{theirs}.norm")
            table |= map_dense(f"{ours}/mlp/dense1", f"{theirs}.mlp.fc1")
            table |= map_dense(f"{ours}/mlp/dense2", f"{theirs}.mlp.fc2")
            table |= map_array(f"{ours}/scale/scale", f"{theirs}.gamma")
    return table | map_norm("norm", "head.norm") | map_dense("logits", "head.fc")


def map_torchvision_convnext(model):
    """The table of a ConvNext of torchvision, where stages and downsampling are numbered together."""
    table = map_conv("stem/conv", "features.0.0") | map_norm("stem/norm", "features.0.1")
    for i, depth in enumerate(model.depths):
        if i:
            ours, theirs = f"stage{i + 1}_downsample", f"features.{2 * i}"
            table |= map_norm(f"{ours}/norm", f"{theirs}.0") | map_conv(f"{ours}/conv", f"{theirs}.1")
        for j in range(depth):
            ours, theirs = f"stage{i + 1}_block{j + 1}", f"features.{2 * i + 1}.{j}"
            table |= map_conv(f"{ours}/conv", f"{theirs}.block.0") | map_norm(f"{ours}/norm", f"{theirs}.block.2")
            table |= map_dense(f"{ours}/mlp/dense1", f"{theirs}.block.3")
            table |= map_dense(f"{ours}/mlp/dense2", f"{theirs}.block.5")
            table |= map_array(f"{ours}/scale/scale", f"{theirs}.layer_scale", (-1,))
    return table | map_norm("norm", "classifier.0") | map_dense("logits", "classifier.2")


def map_conv_norm(path, conv, norm, has_statistics=True):
    """The rows of a convolution without bias and a normalization."""
    map_statistics = map_batch_norm if has_statistics else map_norm
    return map_conv(f"{path}/conv", conv, use_bias=False) | map_statistics(f"{path}/norm", norm)


def map_torchvision_resnet(model):
    """The table of a ResNet of torchvision."""
    map_pair = partial(map_conv_norm, has_statistics=model.norm == "batch")
    table, bottleneck = map_pair("stem", "conv1", "bn1"), model.block == "bottleneck"
    for i, depth in enumerate(model.depths):
        for j in range(depth):
            ours, theirs = f"stage{i + 1}_block{j + 1}", f"layer{i + 1}.{j}"
            for k in range(1, 4 if bottleneck else 3):
                table |= map_pair(f"{ours}/conv{k}", f"{theirs}.conv{k}", f"{theirs}.bn{k}")
            if j == 0 and (i > 0 or bottleneck):
                table |= map_pair(f"{ours}/shortcut", f"{theirs}.downsample.0", f"{theirs}.downsample.1")
    return table | map_dense("logits", "fc")


def map_timm_efficientnet_lite(model):
    """The table of an EfficientNet of timm, where convolutions of blocks without expansion have other names."""
    table = map_conv_norm("stem", "conv_stem", "bn1")
    for i, (depth, expansion) in enumerate(zip(model.depths, model.expansions, strict=True)):
        parts = {"expand": "conv_pw", "depthwise": "conv_dw", "project": "conv_pwl"}
        if expansion == 1:
            parts = {"depthwise": "conv_dw", "project": "conv_pw"}
        for j in range(depth):
            for k, (part, conv) in enumerate(parts.items(), start=1):
                theirs = f"blocks.{i}.{j}"
                table |= map_conv_norm(f"stage{i + 1}_block{j + 1}/{part}", f"{theirs}.{conv}", f"{theirs}.bn{k}")
    return table | map_conv_norm("top", "conv_head", "bn2") | map_dense("logits", "classifier")


@pytest.mark.parametrize(
    ("fixture", "model", "map_names"),
    [
        ("timm_vit", VIT, map_timm_vit),
        ("timm_vit_mean", VIT_MEAN, map_timm_vit),
        ("timm_convnext", CONVNEXT, map_timm_convnext),
        ("torchvision_convnext", CONVNEXT.clone(depths=(1, 2), features=(6, 8)), map_torchvision_convnext),
        ("torchvision_resnet_basic", RESNET, map_torchvision_resnet),
        ("torchvision_resnet_bottleneck", BOTTLENECK, map_torchvision_resnet),
        ("torchvision_resnet_group", BOTTLENECK.clone(depths=(1, 1), norm="group"), map_torchvision_resnet),
        ("timm_efficientnet_lite", EFFICIENTNET, map_timm_efficientnet_lite),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_logits_and_all_gradients_are_those_of_torch(fixture, model, map_names):
    case = read_fixture(fixture)
    table = map_names(model)
    variables = convert_weights(table, case["weights"])
    trained = {path: row for path, row in table.items() if path.startswith("params/")}
    expected = convert_weights(trained, case["gradients"])
    with jax.enable_x64(True):
        images = case["images"] / 255
        shapes = jax.eval_shape(model.init, jax.random.key(0), images)
        assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, shapes)
        assert {leaf.dtype.name for leaf in jax.tree.leaves(shapes)} == {"float64"}

        def score(variables, images):
            logits = model.apply(variables, images)
            return (case["factors"] * logits).sum(), logits

        differentiate = jax.jit(jax.grad(score, (0, 1), has_aux=True))
        (by_weights, by_pixels), logits = jax.device_get(differentiate(variables, images))
        if "train_logits" in case:
            in_training, _ = jax.jit(partial(model.apply, train=True, mutable=[SUMS]))(variables, images)
            assert_close(in_training, case["train_logits"])
    assert logits.dtype == by_pixels.dtype == np.float64
    assert_close(logits, case["logits"])
    assert_close(by_pixels, case["pixel_gradients"])
    found, expected = flatten_dict(by_weights["params"]), flatten_dict(expected["params"])
    assert set(found) == set(expected)
    largest = max(np.abs(gradient).max() for gradient in expected.values())
    for path, gradient in expected.items():
        # The gradient by the bias of keys is zero: the softmax does not depend on it.
        tolerance = 1e-9 * np.abs(gradient).max() + 1e-14 * largest
        np.testing.assert_allclose(found[path], gradient, atol=tolerance, rtol=0, err_msg="/".join(path))


def test_positions_are_resized_as_timm_does():
    case = read_fixture("timm_positions")
    for size in ((5, 4), (3, 2), (7, 9), (4, 6)):
        resized = resize_positions(jnp.float32(case["grid"]), size)
        np.testing.assert_allclose(resized, case["resized_{}x{}".format(*size)], atol=1e-6)


def test_sines_and_cosines_are_those_of_timm():
    expected = read_fixture("timm_positions")["sin_cos"]
    order = [2, 3, 6, 7, 0, 1, 4, 5]  # timm has the sines first, then the cosines
    np.testing.assert_allclose(compute_sin_cos_positions((3, 4), 8), expected[..., order], atol=1e-6)
