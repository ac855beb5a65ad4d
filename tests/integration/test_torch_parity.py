"""Networks of timm and torchvision with random weights: their logits and all gradients, in float64.

The numbers were made with PyTorch by tests/fixtures/draw_torch.py.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from support.torch_cases import assert_close, read_fixture

from jaxclf.models import ConvNext, EfficientNetLite, ResNet, Vit
from jaxclf.models.batch_norm import SUMS
from jaxclf.models.positions import compute_sin_cos_positions, resize_positions
from jaxclf.pretrained.convert import MAPS, convert_weights
from jaxclf.pretrained.revert import revert_weights

VIT = Vit(patch=4, width=12, depth=2, heads=3, classes=5, image_size=(16, 16), dtype="float64")
VIT_MEAN = VIT.clone(pool="mean", qk_norm=True, layer_scale=0.1, mlp_ratio=2.0)
CONVNEXT = ConvNext(depths=(1, 1, 2, 1), features=(4, 6, 6, 8), classes=5, dtype="float64")
RESNET = ResNet(depths=(2, 1), width=6, classes=5, dtype="float64")
BOTTLENECK = ResNet(depths=(1, 2), width=4, block="bottleneck", classes=5, dtype="float64")
EFFICIENTNET = EfficientNetLite(
    depths=(1, 2, 1), features=(8, 8, 16), classes=5, kernel_sizes=(3, 5, 3), strides=(1, 2, 2), expansions=(1, 3, 6),
    stem_features=6, top_features=12, dtype="float64",
)  # fmt: skip
CASES = [
    ("timm_vit", VIT, "timm"),
    ("timm_vit_mean", VIT_MEAN, "timm"),
    ("timm_convnext", CONVNEXT, "timm"),
    ("torchvision_convnext", CONVNEXT.clone(depths=(1, 2), features=(6, 8)), "torchvision"),
    ("torchvision_resnet_basic", RESNET, "torchvision"),
    ("torchvision_resnet_bottleneck", BOTTLENECK, "torchvision"),
    ("torchvision_resnet_group", BOTTLENECK.clone(depths=(1, 1), norm="group"), "torchvision"),
    ("timm_efficientnet_lite", EFFICIENTNET, "timm"),
]
of_every_library = pytest.mark.parametrize(
    ("fixture", "model", "layout"), CASES, ids=lambda value: value if isinstance(value, str) else ""
)


@of_every_library
def test_logits_and_all_gradients_are_those_of_torch(fixture, model, layout):
    case = read_fixture(fixture)
    table = MAPS[type(model)][layout](model)
    expected = {
        path.removeprefix("params/"): row.convert(case["gradients"][row.source])
        for path, row in table.items()
        if path.startswith("params/")
    }
    with jax.enable_x64(True):
        images = case["images"] / 255
        converted = convert_weights(model, images.shape[1:], case["weights"])
        variables = converted.variables
        assert converted.layout == layout
        assert {leaf.dtype.name for leaf in jax.tree.leaves(variables)} == {"float64"}

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
    found = flatten_dict(by_weights["params"], sep="/")
    assert set(found) == set(expected)
    largest = max(np.abs(gradient).max() for gradient in expected.values())
    for path, gradient in expected.items():
        # The gradient by the bias of keys is zero: the softmax does not depend on it.
        tolerance = 1e-9 * np.abs(gradient).max() + 1e-14 * largest
        np.testing.assert_allclose(found[path], gradient, atol=tolerance, rtol=0, err_msg=path)


@of_every_library
def test_converted_tensors_are_reverted_to_the_same(fixture, model, layout):
    case = read_fixture(fixture)
    with jax.enable_x64(True):
        converted = convert_weights(model, case["images"].shape[1:], case["weights"])
        tensors = revert_weights(model, flatten_dict(converted.variables, sep="/"), layout)
    assert tensors.keys() == case["weights"].keys()  # counts of batches are among them
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(tensor, case["weights"][name], err_msg=name)
        assert tensor.shape == case["weights"][name].shape, name


def test_positions_are_resized_as_timm_does():
    case = read_fixture("timm_positions")
    for size in ((5, 4), (3, 2), (7, 9), (4, 6)):
        resized = resize_positions(jnp.float32(case["grid"]), size)
        np.testing.assert_allclose(resized, case["resized_{}x{}".format(*size)], atol=1e-6)


def test_sines_and_cosines_are_those_of_timm():
    expected = read_fixture("timm_positions")["sin_cos"]
    order = [2, 3, 6, 7, 0, 1, 4, 5]  # timm has the sines first, then the cosines
    np.testing.assert_allclose(compute_sin_cos_positions((3, 4), 8), expected[..., order], atol=1e-6)
