"""Conversion of pretrained weights: names, layouts, and what is adapted to other classes, channels and image sizes."""

import sys
from types import SimpleNamespace

import jax
import ml_dtypes
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from support.torch_names import draw_variables, to_source

from jaxclf.errors import UserError
from jaxclf.models import Cnn, ConvNext, EfficientNetLite, ResNet, Vit
from jaxclf.pretrained.classes import read_imagenet_classes
from jaxclf.pretrained.convert import MAPS, convert_weights
from jaxclf.pretrained.networks import NETWORKS, find_network, match_network
from jaxclf.pretrained.revert import choose_layout, revert_weights
from jaxclf.pretrained.source_network import SourceNetwork, format_constructor

VIT = Vit(patch=4, width=8, depth=1, heads=2, classes=5, image_size=(12, 12))
RESNET = ResNet(depths=(1, 1), width=4, block="bottleneck", classes=5)
CONVNEXT = ConvNext(depths=(1, 1), features=(4, 6), classes=5)
EFFICIENTNET = EfficientNetLite(
    depths=(1, 2), features=(4, 6), classes=5, kernel_sizes=(3, 3), strides=(1, 2), expansions=(1, 2),
    stem_features=4, top_features=8,
)  # fmt: skip
CASES = [
    (model, layout)
    for model in (VIT, VIT.clone(pool="mean", qk_norm=True, layer_scale=0.1), RESNET, CONVNEXT, EFFICIENTNET)
    for layout in MAPS[type(model)]
]
SHAPE = (12, 12, 3)


@pytest.mark.parametrize(("model", "layout"), CASES, ids=lambda value: getattr(type(value), "__name__", value))
def test_every_tensor_is_used_and_every_variable_filled(model, layout, random):
    flat = draw_variables(model, random, SHAPE)
    arrays = to_source(model, layout, flat)
    converted = convert_weights(model, SHAPE, arrays)
    assert converted.layout == layout
    assert set(converted.used) | set(converted.ignored) == set(arrays)
    assert all(name.endswith("num_batches_tracked") for name in converted.ignored)
    found = flatten_dict(converted.variables, sep="/")
    assert found.keys() == flat.keys()
    for path, array in flat.items():
        np.testing.assert_array_equal(found[path], array, err_msg=path)


@pytest.mark.parametrize(("model", "layout"), CASES, ids=lambda value: getattr(type(value), "__name__", value))
def test_reverted_variables_are_converted_to_the_same(model, layout, random):
    flat = draw_variables(model, random, SHAPE)
    tensors = revert_weights(model, flat, layout)
    expected = to_source(model, layout, flat)
    assert tensors.keys() == expected.keys()
    for name, tensor in tensors.items():
        if name.endswith("num_batches_tracked"):
            assert (tensor.dtype, tensor.shape, tensor) == (np.int64, (), 0)
        else:
            np.testing.assert_array_equal(tensor.ravel(), expected[name].ravel(), err_msg=name)
    found = flatten_dict(convert_weights(model, SHAPE, tensors).variables, sep="/")
    for path, array in flat.items():
        np.testing.assert_array_equal(found[path], array, err_msg=path, strict=True)


@pytest.mark.parametrize(
    ("model", "given", "layout"),
    [
        (RESNET, None, "torchvision"),
        (VIT, "jaxclf", "timm"),
        (CONVNEXT, None, "timm"),
        (CONVNEXT, "torchvision", "torchvision"),
        (ConvNext.named("nano", 5), None, "timm"),
        (ConvNext.named("T", 5), None, "torchvision"),
        (ConvNext.named("B", 5), "timm", "timm"),
        (EFFICIENTNET, None, "timm"),
        (EFFICIENTNET, "efficientnet_lite_pytorch", "efficientnet_lite_pytorch"),
    ],
    ids=lambda value: getattr(type(value), "__name__", value),
)
def test_the_library_of_reverted_variables(model, given, layout):
    assert choose_layout(model, given) == layout


def test_the_mlps_of_timm_are_convolutions_in_small_networks_only(random):
    for model, ndim in ((CONVNEXT, 4), (CONVNEXT.clone(depths=(1,), features=(96,)), 2)):
        tensors = revert_weights(model, draw_variables(model, random, SHAPE), "timm")
        assert tensors["stages.0.blocks.0.mlp.fc1.weight"].ndim == ndim


def test_networks_without_counterpart_are_not_reverted(random):
    with pytest.raises(UserError, match=r"Cnn has no counterpart .* expected one of ResNet, Vit, ConvNext, EfficientN"):
        choose_layout(Cnn(features=(2,), kernel_size=3, dense=(4,), classes=3))
    for model, layout, item in (
        (VIT.clone(position_embedding="sin_cos"), "timm", "params/positions: only in timm"),
        (CONVNEXT.clone(layer_scale=None), "torchvision", "params/stage1_block1/scale/scale: only in torchvision"),
    ):
        flat = draw_variables(model, random, SHAPE)
        with pytest.raises(UserError, match=f"{layout} has no {type(model).__name__} with these fields") as error:
            revert_weights(model, flat, layout)
        assert item in error.value.items
        converted = convert_weights(model, SHAPE, flat)  # our own names are no matter of these libraries
        assert converted.layout == "jaxclf"
        assert flatten_dict(converted.variables, sep="/").keys() == flat.keys()


def test_variables_by_our_own_names(random):
    model = Cnn(features=(2,), kernel_size=3, dense=(4,), classes=3)
    flat = draw_variables(model, random, SHAPE)
    converted = convert_weights(model, SHAPE, flat)
    assert (converted.layout, converted.ignored) == ("jaxclf", ())
    jax.tree.map(np.testing.assert_array_equal, converted.variables, unflatten_dict(flat, sep="/"))


def test_what_is_missing_and_what_is_left_over_are_listed(random):
    flat = draw_variables(RESNET, random, SHAPE)
    arrays = to_source(RESNET, "torchvision", flat)
    arrays["bn9.weight"] = arrays.pop("bn1.weight")
    expected = f"1 of {len(flat)} variables have no tensor, and 1 of {len(arrays)} tensors are left over"
    with pytest.raises(UserError, match=expected) as error:
        convert_weights(RESNET, SHAPE, arrays)
    assert error.value.items == [
        "params/stem/norm/scale: no tensor bn1.weight",
        "bn9.weight: used by no variable",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda array: array[:-1], r"params/stem/norm/scale: the tensor has shape \[3\], expected \[4\]"),
        (lambda array: array.astype(np.int8), "params/stem/norm/scale: the tensor is int8, expected floats"),
    ],
)
def test_wrong_shapes_and_types_are_refused(change, message, random):
    arrays = to_source(RESNET, "torchvision", draw_variables(RESNET, random, SHAPE))
    arrays["bn1.weight"] = change(arrays["bn1.weight"])
    with pytest.raises(UserError, match=message):
        convert_weights(RESNET, SHAPE, arrays)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("pos_embed", lambda array: array[..., :-1], r"positions: .* has shape \[10, 7\], .* becomes \[10, 8\]"),
        ("patch_embed.proj.weight", np.ravel, r"patch_embedding/kernel: .* \[384\], .* becomes \[4, 4, 3, 8\]"),
        ("blocks.0.attn.qkv.bias", lambda array: array[:-1], r"query/bias: .* has shape \[23\], .* becomes \[8\]"),
        (
            "blocks.0.attn.qkv.bias",
            lambda array: array[:1].reshape(()),
            r"query/bias: .* has shape \[\], .* becomes \[8\]",
        ),
    ],
)
def test_tensors_that_cannot_be_converted_are_refused(name, change, message, random):
    """The networks of a family have the same names, so a file may be taken for another network."""
    arrays = to_source(VIT, "timm", draw_variables(VIT, random, SHAPE))
    arrays[name] = change(arrays[name])
    with pytest.raises(UserError, match=rf"params/.*{message}; name the network") as error:
        convert_weights(VIT, SHAPE, arrays)
    assert f"the tensor {name} has" in str(error.value)


def test_a_new_head_is_initialized_and_the_rest_kept(random):
    arrays = to_source(VIT, "timm", draw_variables(VIT, random, SHAPE))
    model = VIT.clone(classes=3)
    with pytest.raises(UserError, match=r"params/logits/kernel: the tensor has shape \[8, 5\], expected \[8, 3\]"):
        convert_weights(model, SHAPE, arrays)
    kept, new, other = (
        convert_weights(VIT, SHAPE, arrays),
        *(convert_weights(model, SHAPE, arrays, "new", i) for i in (0, 1)),
    )
    assert new.ignored == ("head.bias", "head.weight")
    for path, array in flatten_dict(new.variables["params"], sep="/").items():
        if path.startswith("logits/"):
            assert array.shape[-1] == 3
        else:
            np.testing.assert_array_equal(array, flatten_dict(kept.variables["params"], sep="/")[path])
    heads = [each.variables["params"]["logits"]["kernel"] for each in (new, other)]
    assert np.abs(heads[0] - heads[1]).max() > 0


@pytest.mark.parametrize("model", [RESNET, VIT, EFFICIENTNET], ids=lambda model: type(model).__name__)
def test_one_channel_answers_as_equal_channels_do(model, random):
    flat = draw_variables(model, random, SHAPE)
    flat = {path: np.abs(array) if path.endswith("var") else array for path, array in flat.items()}
    arrays = to_source(model, next(iter(MAPS[type(model)])), flat)
    gray = random.random((2, 12, 12, 1), np.float32)
    one = convert_weights(model, (12, 12, 1), arrays)
    assert len(one.adapted) == 1
    assert "3 to 1 input channels" in one.adapted[0]
    expected = model.apply(convert_weights(model, SHAPE, arrays).variables, np.repeat(gray, 3, axis=3))
    np.testing.assert_allclose(model.apply(one.variables, gray), expected, rtol=1e-4, atol=1e-4)


def test_more_channels_repeat_the_kernel_and_keep_its_scale(random):
    flat = draw_variables(RESNET, random, SHAPE)
    converted = convert_weights(RESNET, (12, 12, 4), to_source(RESNET, "torchvision", flat))
    kernel, four = flat["params/stem/conv/kernel"], converted.variables["params"]["stem"]["conv"]["kernel"]
    np.testing.assert_allclose(four, 0.75 * kernel[:, :, [0, 1, 2, 0]], rtol=1e-6)


def test_positions_are_resized_as_the_model_does_it_itself(random):
    arrays = to_source(VIT, "timm", draw_variables(VIT, random, SHAPE))
    images = random.random((2, 20, 16, 3), np.float32)
    expected = VIT.apply(convert_weights(VIT, SHAPE, arrays).variables, images)
    larger = VIT.clone(image_size=(20, 16))
    resized = convert_weights(larger, (20, 16, 3), arrays)
    assert resized.adapted == ("params/positions: 10 to 21 positions",)
    np.testing.assert_allclose(larger.apply(resized.variables, images), expected, atol=1e-5)


def test_half_precision_becomes_single(random):
    arrays = to_source(RESNET, "torchvision", draw_variables(RESNET, random, SHAPE))
    half = {name: array.astype(np.float16) for name, array in arrays.items()}
    leaves = jax.tree.leaves(convert_weights(RESNET, SHAPE, half).variables)
    assert {leaf.dtype.name for leaf in leaves} == {"float32"}


def test_pytorch_is_given_types_that_it_takes(monkeypatch):
    """It takes no bfloat16 or float8 of NumPy; other types stay as they are."""
    given = {}
    layer = SimpleNamespace(register_forward_hook=lambda hook: None)
    module = SimpleNamespace(eval=lambda: module, load_state_dict=given.update, get_submodule=lambda path: layer)
    library = SimpleNamespace(models=SimpleNamespace(get_model=lambda name, num_classes: module))
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(tensor=lambda array: array))
    monkeypatch.setitem(sys.modules, "torchvision", library)
    types = (ml_dtypes.bfloat16, ml_dtypes.float8_e5m2, np.float64, np.int64)
    arrays = {np.dtype(dtype).name: np.array([1.5, -3]).astype(dtype) for dtype in types}
    SourceNetwork("torchvision", find_network("resnet18"), RESNET, arrays)
    assert [array.dtype.name for array in given.values()] == ["float32", "float32", "float64", "int64"]
    for name, array in arrays.items():
        np.testing.assert_array_equal(given[name], array.astype(np.float64))


def test_the_names_of_networks_and_classes():
    assert {"resnet50", "vit-s16", "convnext-t", "convnext-atto", "efficientnet-lite0"} <= NETWORKS.keys()
    assert find_network("efficientnet-lite2").make_model(3).normalize.mean == (127 / 255,) * 3
    assert (find_network("efficientnet-lite2").side, find_network("efficientnet-lite2").resize) == (260, 292)
    with pytest.raises(UserError, match="there is no network 'resnet51'; expected one of resnet18"):
        find_network("resnet51")
    for name, network in NETWORKS.items():
        assert match_network(network.make_model(7).clone(dtype="bfloat16", remat=True)) == name
    assert match_network(ResNet.named(18, 10, batch_norm_group=8, drop_path=0.1)) == "resnet18"
    for model in (
        RESNET,
        ResNet.named(18, 10, stem="cifar"),
        Vit.named("S/16", 10, image_size=(96, 96)),
        Cnn((), (), 3),
    ):
        assert match_network(model) is None
    classes = read_imagenet_classes()
    assert len({each.name for each in classes}) == len({each.wordnet_id for each in classes}) == 1000
    assert [each.wordnet_id for each in classes] == sorted(each.wordnet_id for each in classes)
    assert classes[0] == ("n01440764", "tench")
    assert classes[999] == ("n15075141", "toilet tissue")


@pytest.mark.parametrize(
    ("layout", "network", "expected"),
    [
        ("torchvision", "resnet50", 'torchvision.models.get_model("resnet50", num_classes=3)'),
        ("torchvision", "convnext-s", 'torchvision.models.get_model("convnext_small", num_classes=3)'),
        ("timm", "convnext-b", 'timm.create_model("convnext_base", num_classes=3)'),
        ("timm", "convnext-atto", 'timm.create_model("convnext_atto", num_classes=3)'),
        ("timm", "vit-ti16", 'timm.create_model("vit_tiny_patch16_224", num_classes=3)'),
        ("timm", "efficientnet-lite0", 'timm.create_model("tf_efficientnet_lite0", num_classes=3)'),
        (
            "efficientnet_lite_pytorch",
            "efficientnet-lite2",
            'efficientnet_lite_pytorch.EfficientNet.from_name("efficientnet-lite2", num_classes=3)',
        ),
    ],
)
def test_the_expression_that_makes_a_network_of_a_library(layout, network, expected):
    assert format_constructor(layout, find_network(network), 3) == expected
