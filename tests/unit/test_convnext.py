"""ConvNeXts: published sizes, stages, drop path."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.networks import draw_variables

from jaxclf.errors import UserError
from jaxclf.models import ConvNext, summarize
from jaxclf.models.residual import compute_drop_path_rates
from jaxclf.models.summary import count_parameters
from jaxclf.models.taps import trace_outputs

MODEL = ConvNext(depths=(1, 2), features=(4, 6), classes=3, kernel_size=3, layer_scale=0.5)
IMAGES = np.random.default_rng(0).integers(0, 256, (4, 16, 20, 2), np.uint8)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("atto", 3_695_520),
        ("femto", 5_217_784),
        ("pico", 9_045_672),
        ("nano", 15_593_560),
        ("T", 28_589_128),
        ("S", 50_223_688),
        ("B", 88_591_464),
    ],
)
def test_published_networks_have_their_parameters(name, count):
    model = ConvNext.named(name, classes=1000)
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.uint8)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    assert count_parameters(shapes) == count
    assert {path for group in model.layer_groups for path in group} == set(shapes["params"])


def test_a_published_network_has_explicit_fields():
    expected = ConvNext(depths=(2, 2, 6, 2), features=(40, 80, 160, 320), classes=5, drop_path=0.1)
    assert ConvNext.named("atto", classes=5, drop_path=0.1) == expected


def test_stages_and_blocks_have_names_and_halved_sides():
    layers = {layer.path: layer.output_shape for layer in summarize(MODEL, (16, 20, 2)).layers if "/" not in layer.path}
    assert layers == {
        "stem": (4, 5, 4),
        "stage1_block1": (4, 5, 4),
        "stage2_downsample": (2, 2, 6),
        "stage2_block1": (2, 2, 6),
        "stage2_block2": (2, 2, 6),
        "norm": (6,),
        "logits": (3,),
    }
    assert MODEL.layer_groups == (
        ("stem",), ("stage1_block1",), ("stage2_downsample", "stage2_block1"), ("stage2_block2", "norm"), ("logits",),
    )  # fmt: skip


def test_drop_path_grows_from_zero():
    np.testing.assert_allclose(compute_drop_path_rates(0.3, 4), [0, 0.1, 0.2, 0.3])
    assert compute_drop_path_rates(0.3, 1) == [0]


def test_activations_are_bfloat16_and_logits_float32():
    model = MODEL.clone(dtype="bfloat16")
    variables = draw_variables(model, IMAGES.shape)
    outputs = trace_outputs(model, variables, IMAGES)
    assert {calls[0].dtype.name for name, calls in outputs.items() if name.startswith("stage")} == {"bfloat16"}
    logits, exact = model.apply(variables, IMAGES), MODEL.apply(variables, IMAGES)
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, exact, atol=0.05 * np.abs(exact).max())


def test_without_classes_features_are_what_the_logits_are_computed_from():
    variables = draw_variables(MODEL, IMAGES.shape)
    head = variables["params"]["logits"]
    others = {name: tree for name, tree in variables["params"].items() if name != "logits"}
    features = MODEL.clone(classes=0).apply({"params": others}, IMAGES)
    assert features.shape == (4, 6)
    logits = features @ head["kernel"] + head["bias"][None]
    np.testing.assert_allclose(MODEL.apply(variables, IMAGES), logits, atol=1e-5)
    assert ("logits",) not in MODEL.clone(classes=0).layer_groups


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"depths": (1,)}, r"\[1, 2\] stages"),
        ({"depths": (1, 0)}, r"depths\[1\]=0"),
        ({"kernel_size": 0}, "kernel_size=0"),
        ({"classes": -1}, "classes=-1"),
        ({"drop_path": 1.0}, "drop_path=1.0"),
        ({"depths": (1,) * 4, "features": (2,) * 4}, "images of 16 x 20 pixels are too small for 4 stages.*32 x 32"),
    ],
)
def test_wrong_fields_are_named(wrong, message):
    with pytest.raises(UserError, match=message):
        jax.eval_shape(MODEL.clone(**wrong).init, jax.random.key(0), IMAGES)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(UserError, match="no ConvNext 'L'; choose from atto, femto, pico, nano, T, S, B"):
        ConvNext.named("L", classes=3)
