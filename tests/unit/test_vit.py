"""Vision transformers: published sizes, attention, positions, drop path."""

import re
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.networks import draw_variables

from jaxclf import saliency
from jaxclf.errors import UserError
from jaxclf.models import IMAGENET, Normal, Vit
from jaxclf.models.attention import Attention
from jaxclf.models.examples import Examples, use_examples
from jaxclf.models.summary import count_parameters
from jaxclf.models.taps import trace_outputs
from jaxclf.models.vit import VitBlock

VIT = Vit(patch=4, width=8, depth=2, heads=2, classes=3, image_size=(8, 12), attention_dropout=0.3)
IMAGES = np.random.default_rng(0).integers(0, 256, (4, 8, 12, 2), np.uint8)


@pytest.mark.parametrize(("name", "count"), [("Ti/16", 5_717_416), ("S/16", 22_050_664), ("B/16", 86_567_656)])
def test_published_networks_have_their_parameters(name, count):
    model = Vit.named(name, classes=1000)
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.uint8)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    assert count_parameters(shapes) == count
    assert {path for group in model.layer_groups for path in group} == set(shapes["params"])


def test_a_published_network_has_explicit_fields():
    model = Vit.named("Ti/16", classes=5, image_size=(64, 64), normalize=IMAGENET)
    expected = Vit(
        patch=16, width=192, depth=12, heads=3, classes=5, image_size=(64, 64), normalize=IMAGENET
    )  # fmt: skip
    assert model == expected


@pytest.fixture
def tokens(random):
    return jnp.float32(random.normal(size=(6, 5, 8)))


@pytest.mark.parametrize("qk_norm", [False, True])
def test_attention_does_not_depend_on_the_order_of_tokens(qk_norm, tokens):
    attention = Attention(2, Normal(), qk_norm)
    variables = attention.init(jax.random.key(0), tokens, False)
    order = [3, 0, 4, 1, 2]
    apply = partial(attention.apply, variables, train=False)
    np.testing.assert_allclose(apply(tokens[:, order]), apply(tokens)[:, order], atol=1e-6)


def test_normalized_queries_and_keys_do_not_depend_on_their_scale(tokens):
    attention = Attention(2, Normal(1.0), qk_norm=True)
    variables = attention.init(jax.random.key(0), tokens, False)
    larger = jax.tree.map(lambda x: x, variables)
    larger["params"]["query"]["kernel"] *= 10
    found, expected = (attention.apply(each, tokens, False) for each in (larger, variables))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_masks_of_attention_follow_the_positions_of_examples(tokens):
    module = Attention(2, Normal(1.0), attention_dropout=0.5)
    variables = module.init(jax.random.key(0), tokens, False)
    apply = partial(module.apply, variables, train=True, rngs={"dropout": jax.random.key(1)})
    whole = apply(tokens)
    assert np.abs(whole - module.apply(variables, tokens, False)).max() > 0.01
    for part in (slice(0, 3), slice(3, 6), slice(4, 5)):
        with use_examples(Examples(jnp.arange(6)[part])):
            np.testing.assert_allclose(apply(tokens[part]), whole[part], atol=1e-5)


def test_a_dropped_block_returns_its_input_and_the_others_are_scaled(tokens):
    tokens = jnp.tile(tokens, (10, 1, 1))
    block = VitBlock(2, 16, Normal(1.0), drop_path=0.75)
    variables = block.init(jax.random.key(0), tokens, False)
    out = block.apply(variables, tokens, True, rngs={"dropout": jax.random.key(1)})
    unchanged = (out == tokens).all((1, 2)).mean()
    assert unchanged == pytest.approx(0.75**2, abs=4 * np.sqrt(0.25 / len(tokens)))


def test_softmax_and_logits_are_float32_where_activations_are_bfloat16():
    model = VIT.clone(dtype="bfloat16")
    variables = draw_variables(model, IMAGES.shape)
    outputs = trace_outputs(model, variables, IMAGES)
    assert {outputs[name][0].dtype.name for name in ("block1", "block2/attention", "norm")} == {"bfloat16"}
    jaxpr = str(jax.make_jaxpr(partial(model.apply, variables))(IMAGES))
    assert ":f32[4,2,7,7] = exp" in jaxpr and ":bf16[4,2,7,7] = exp" not in jaxpr
    logits, exact = model.apply(variables, IMAGES), VIT.apply(variables, IMAGES)
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, exact, atol=0.05 * np.abs(exact).max())


def test_without_classes_features_are_what_the_logits_are_computed_from():
    for model in (VIT, VIT.clone(pool="mean")):
        variables = draw_variables(model, IMAGES.shape)
        head = variables["params"]["logits"]
        features = model.clone(classes=0).apply(
            {"params": {name: tree for name, tree in variables["params"].items() if name != "logits"}}, IMAGES
        )
        assert features.shape == (4, 8)
        logits = features @ head["kernel"] + head["bias"][None]
        np.testing.assert_allclose(model.apply(variables, IMAGES), logits, atol=1e-5)
    assert ("logits",) not in VIT.clone(classes=0).layer_groups


@pytest.mark.parametrize("position_embedding", ["learned", "sin_cos"])
def test_images_of_another_size_use_the_same_weights(position_embedding):
    model = VIT.clone(position_embedding=position_embedding)
    variables = draw_variables(model, IMAGES.shape)
    larger = np.random.default_rng(0).integers(0, 256, (2, 16, 20, 2), np.uint8)
    shapes = jax.eval_shape(model.init, jax.random.key(0), larger)
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, variables)
    assert np.isfinite(model.apply(variables, larger)).all()


def test_class_activation_maps_name_the_layers_with_places():
    variables = draw_variables(VIT, IMAGES.shape)
    for layer in (None, "patch_embedding"):
        a = saliency.GradCam(layer)(VIT, variables, IMAGES, np.zeros(4, np.int32))
        assert a.values.shape == (4, 2, 3, 1)
    with pytest.raises(
        UserError, match=r"'logits' has the output shape .* choose one of patch_embedding, block1/norm1, "
    ):
        saliency.GradCam("logits")(VIT, variables, IMAGES, np.zeros(4, np.int32))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"heads": 3}, "heads=3 does not divide width=8"),
        ({"image_size": (8, 10)}, "images of 8 x 10 pixels: the sides must be multiples of patch=4"),
        ({"patch": 0}, "patch=0"),
        ({"classes": -1}, "classes=-1"),
        ({"drop_path": 1.0}, "drop_path=1.0"),
        ({"attention_dropout": -0.1}, "attention_dropout=-0.1"),
        ({"mlp_ratio": 0.0}, "mlp_ratio"),
        ({"width": 6, "position_embedding": "sin_cos"}, "width=6: expected a multiple of 4"),
        ({"normalize": IMAGENET}, "images have 2 channels"),
    ],
)
def test_wrong_fields_are_named(wrong, message):
    with pytest.raises(UserError, match=message):
        jax.eval_shape(VIT.clone(**wrong).init, jax.random.key(0), IMAGES)


def test_wrong_images_and_names_are_named():
    with pytest.raises(UserError, match="images of 8 x 10 pixels"):
        VIT.init(jax.random.key(0), IMAGES[:, :, :10])
    with pytest.raises(UserError, match=r"no Vit 'L/7'; choose from Ti/16, S/16, B/16"):
        Vit.named("L/7", classes=3)


def test_the_example_of_the_documentation_runs(capsys):
    page = Path(__file__).parents[2] / "docs/usage.md"
    (example,) = re.findall(r"```python\n(from jaxclf.models import .*?Vit.*?)```", page.read_text("utf-8"), re.S)
    exec(example, {})
    assert "| block4 | VitBlock | [64, 96] | 0 |" in capsys.readouterr().out
