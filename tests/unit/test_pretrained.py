"""Conversion of pretrained weights: names, layouts, and what is adapted to other classes, channels and image sizes."""

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from support.torch_names import draw_variables, to_source

from jaxclf.errors import UserError
from jaxclf.models import Cnn, ConvNext, EfficientNetLite, ResNet, Vit
from jaxclf.pretrained.classes import read_imagenet_classes
from jaxclf.pretrained.convert import MAPS, convert_weights
from jaxclf.pretrained.networks import NETWORKS, find_network

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


def test_the_names_of_networks_and_classes():
    assert {"resnet50", "vit-s16", "convnext-t", "convnext-atto", "efficientnet-lite0"} <= NETWORKS.keys()
    assert find_network("efficientnet-lite2").make_model(3).normalize.mean == (127 / 255,) * 3
    assert (find_network("efficientnet-lite2").side, find_network("efficientnet-lite2").resize) == (260, 292)
    with pytest.raises(UserError, match="there is no network 'resnet51'; expected one of resnet18"):
        find_network("resnet51")
    classes = read_imagenet_classes()
    assert len({each.name for each in classes}) == len({each.wordnet_id for each in classes}) == 1000
    assert [each.wordnet_id for each in classes] == sorted(each.wordnet_id for each in classes)
    assert classes[0] == ("n01440764", "tench")
    assert classes[999] == ("n15075141", "toilet tissue")
