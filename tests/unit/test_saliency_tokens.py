"""Class activation maps of tokens: the grid they belong to, the layer that is chosen, derivatives place by place."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.networks import draw_variables

from jaxclf import saliency
from jaxclf.errors import UserError
from jaxclf.models import Vit
from jaxclf.saliency.query import Query
from jaxclf.saliency.taps import find_spatial_layer
from jaxclf.saliency.tokens import Grid, find_grid, list_grids

SHAPE = (2, 16, 12, 1)
IMAGES = np.random.default_rng(0).random(SHAPE, np.float32)


def make_vit(**changes):
    return Vit(patch=4, width=8, depth=2, heads=2, classes=3, image_size=SHAPE[1:3], **changes)


class Encoder(nn.Module):
    """A transformer of Flax's own attention, whose queries are [b, n, heads, c]; `head` comes after it."""

    head: str = "mean"
    wrap: str = "none"

    @nn.compact
    def __call__(self, images, train=False):
        x = nn.Conv(8, (4, 4), (4, 4), name="embed")(images)
        x = x.reshape(x.shape[0], -1, 8)
        if self.head == "mixer":
            x = x + nn.Dense(12, name="tokens")(x.swapaxes(1, 2)).swapaxes(1, 2)
            x = nn.Dense(8, name="channels")(x)
        else:
            attention = nn.MultiHeadDotProductAttention
            normed = nn.LayerNorm(name="before")(x)
            x = x + (nn.remat(attention) if self.wrap == "remat" else attention)(2, name="attention")(normed, normed)
            x = nn.LayerNorm(name="after")(x)
        if self.head == "conv":
            x = nn.Conv(4, (2, 2), name="conv")(x.reshape(-1, 4, 3, 8)).reshape(x.shape[0], -1, 4)
        return nn.Dense(3, name="logits")(x.mean(axis=1))


@given(side=st.integers(2, 30), patch=st.integers(1, 16), others=st.integers(0, 5), rows=st.integers(1, 3))
def test_a_grid_has_the_aspect_of_the_image_and_all_its_tokens(side, patch, others, rows):
    shape = (1, rows * side * patch, side * patch, 3)
    grids = list_grids(rows * side * side + others, shape)
    assert Grid(rows * side, side, others) in grids
    for grid in grids:
        assert grid.height == rows * grid.width
        assert grid.height * grid.width + grid.others == rows * side * side + others
    assert find_grid(rows * side * side + others, shape, [(rows * side, side)]) == Grid(rows * side, side, others)


@pytest.mark.parametrize(
    ("tokens", "size", "grid"),
    [
        (197, (224, 224), Grid(14, 14, 1)),  # ViT-B/16
        (198, (224, 224), Grid(14, 14, 2)),  # DeiT with a distillation token
        (261, (224, 224), Grid(16, 16, 5)),  # DINOv2 with registers, patches of 14
        (65, (32, 32), Grid(8, 8, 1)),
        (141, (224, 160), Grid(14, 10, 1)),
    ],
)
def test_grids_of_published_networks(tokens, size, grid):
    assert find_grid(tokens, (8, *size, 3)) == grid


@pytest.mark.parametrize(
    ("tokens", "shape", "message"),
    [
        (9, (1, 12, 12, 1), r"9 tokens .* can be 3 x 3 \+ 0 or 2 x 2 \+ 5: expected one grid"),
        (188, (1, 224, 224, 3), "188 tokens .* can be no grid: expected .* at most 5 tokens before it"),
        (9, (1, 144), "9 tokens of images of shape .1, 144. can be no grid"),
    ],
)
def test_other_numbers_of_tokens_are_refused(tokens, shape, message):
    with pytest.raises(UserError, match=message):
        find_grid(tokens, shape)


def test_tokens_are_arranged_row_by_row_after_the_others():
    tokens = np.arange(42.0).reshape(2, 7, 3)
    expected = np.stack([[[tokens[b, 1 + 2 * i + j] for j in range(2)] for i in range(3)] for b in range(2)])
    np.testing.assert_array_equal(Grid(3, 2, 1).to_map(tokens), expected)


@pytest.mark.parametrize(
    ("model", "layer"),
    [
        (make_vit(), "block2/norm1"),
        (make_vit(pool="mean", qk_norm=True, layer_scale=0.5), "block2/norm1"),
        (make_vit(remat=True), "block2/norm1"),
        (Encoder(), "before"),
        (Encoder(wrap="remat"), "before"),
        (Encoder("conv"), "conv"),
        (Encoder("mixer"), "channels"),
    ],
    ids=str,
)
def test_the_default_is_the_last_layer_before_the_last_attention_or_a_later_feature_map(model, layer):
    query = Query(model, draw_variables(model, SHAPE), jnp.asarray(IMAGES), None, False, "logit", None, IMAGES, 8)
    assert find_spatial_layer(query, None).path == layer


def scale_layer(model, variables, path, scale):
    """Logits where the output of a layer is multiplied by a scale."""

    def hook(call, arguments, options, context):
        outputs = call(*arguments, **options)
        if context.method_name != "__call__" or "/".join(context.module.path) != path:
            return outputs
        return outputs * scale

    with nn.intercept_methods(hook):
        return model.apply(variables, IMAGES)


@pytest.mark.parametrize(("pool", "layer"), [("class_token", None), ("mean", "block1/norm1")])
def test_hirescam_is_the_derivative_by_the_strength_of_a_patch(pool, layer):
    model = make_vit(pool=pool)
    variables, others = draw_variables(model, SHAPE), int(pool == "class_token")

    def strengthen(scale):
        return scale_layer(model, variables, layer or "block2/norm1", scale)[:, 2].sum()

    expected = jax.jit(jax.grad(strengthen))(jnp.ones((2, 12 + others, 1)))[:, others:].reshape(2, 4, 3, 1)
    values = saliency.HiResCam(layer, relu=False)(model, variables, IMAGES, 2).values
    assert np.abs(values).max() > 1e-4
    np.testing.assert_allclose(values, expected, atol=1e-5 * float(np.abs(values).max()))


@pytest.mark.parametrize("cls", [saliency.GradCam, saliency.ScoreCam], ids=lambda x: x.__name__)
def test_other_maps_have_the_sides_of_the_grid(cls):
    model = make_vit()
    variables = draw_variables(model, SHAPE)
    a = saliency.all_classes(cls(upsample="nearest", relu=False))(model, variables, IMAGES)
    small = saliency.all_classes(cls(relu=False))(model, variables, IMAGES).values
    assert small.shape == (2, 3, 4, 3, 1)
    assert np.abs(small).max() > 0
    np.testing.assert_array_equal(a.values, small.repeat(4, axis=2).repeat(4, axis=3))


def test_after_the_last_attention_patches_have_no_gradient_if_the_class_token_is_pooled():
    """So the default is an earlier layer."""
    model = make_vit()
    a = saliency.GradCam("block2", relu=False)(model, draw_variables(model, SHAPE), IMAGES)
    np.testing.assert_array_equal(a.values, 0)


def test_a_layer_whose_tokens_are_no_grid_is_named():
    model = Encoder("mixer")
    variables = draw_variables(model, SHAPE)
    with pytest.raises(UserError, match=r"layer 'tokens' has the output shape \[2, 8, 12\]: expected .* choose one of"):
        saliency.GradCam("tokens")(model, variables, IMAGES)
