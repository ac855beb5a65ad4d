"""Maps of attention: the equations of the papers in NumPy, loops and checkpoints, and what is said of other models."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf
from support.networks import Net, draw_variables

from jaxclf import saliency
from jaxclf.errors import UserError
from jaxclf.models import Vit

SHAPE, TARGET = (2, 8, 8, 1), 1
IMAGES = np.random.default_rng(0).random(SHAPE, np.float32)
METHODS = [saliency.AttentionRollout(), saliency.GenericAttention(), saliency.LeGrad()]


def make_vit(**changes):
    return Vit(patch=4, width=8, depth=2, heads=2, classes=3, image_size=(8, 8), mlp_ratio=2.0, **changes)


class Reference:
    """The same transformer in NumPy and float64, for one image; `changes` are added to the attention weights."""

    def __init__(self, variables, pool):
        self.params = jax.tree.map(lambda x: np.asarray(x, float), variables["params"])
        self.pool = pool

    def norm(self, x, params):
        x = x - x.mean(axis=-1, keepdims=True)
        return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-6) * params["scale"] + params["bias"]

    def dense(self, x, params):
        return x @ params["kernel"] + params["bias"]

    def embed(self, image):
        patches = image.reshape(2, 4, 2, 4, 1).swapaxes(1, 2).reshape(4, 16)
        kernel = self.params["patch_embedding"]["kernel"].reshape(16, 8)
        tokens = patches @ kernel + self.params["patch_embedding"]["bias"]
        if self.pool == "class_token":
            tokens = np.concatenate([self.params["class_token"][None], tokens])
        return tokens + self.params["positions"]

    def apply_block(self, x, params, change):
        normed = self.norm(x, params["norm1"])
        query, key, value = (
            self.dense(normed, params["attention"][name]).reshape(-1, 2, 4).swapaxes(0, 1)
            for name in ("query", "key", "value")
        )
        scores = np.exp(query @ key.swapaxes(1, 2) / 2)
        weights = scores / scores.sum(axis=-1, keepdims=True)
        mixed = ((weights + change) @ value).swapaxes(0, 1).reshape(x.shape)
        x = x + self.dense(mixed, params["attention"]["out"])
        hidden = self.dense(self.norm(x, params["norm2"]), params["mlp"]["dense1"])
        return x + self.dense(hidden * (1 + erf(hidden / np.sqrt(2))) / 2, params["mlp"]["dense2"]), weights

    def finish(self, x):
        x = self.norm(x, self.params["norm"])
        return self.dense(x[0] if self.pool == "class_token" else x.mean(axis=0), self.params["logits"])

    def run(self, image, changes):
        """The logits, the attention weights, and the logits of the mean of each layer's tokens."""
        x, weights, layers = self.embed(image), [], []
        for number, change in enumerate(changes, start=1):
            x, attention = self.apply_block(x, self.params[f"block{number}"], change)
            weights.append(attention)
            layers.append(self.finish(np.broadcast_to(x.mean(axis=0), x.shape)))
        return self.finish(x), np.array(weights), np.array(layers)

    def differentiate(self, image, step=1e-5):
        """Attention weights, and central differences by them of the logit and of each layer's own logit."""
        n = 5 if self.pool == "class_token" else 4
        shape = (2, 2, n, n)
        weights = self.run(image, np.zeros(shape))[1]
        logit, own = np.zeros(shape), np.zeros(shape)
        for place in np.ndindex(*shape):
            change = np.zeros(shape)
            change[place] = step
            above, below = self.run(image, change), self.run(image, -change)
            logit[place] = (above[0] - below[0])[TARGET] / (2 * step)
            own[place] = (above[2] - below[2])[place[0], TARGET] / (2 * step)
        return weights, logit, own


def draw_large(model):
    """Variables for which attention is uneven and all gradients differ."""
    return jax.tree.map(lambda x: 2 * x, draw_variables(model, SHAPE))


@pytest.mark.parametrize("pool", ["class_token", "mean"])
def test_the_equations_of_the_papers(pool):
    model = make_vit(pool=pool)
    variables = draw_large(model)
    maps = [method(model, variables, IMAGES, TARGET).values for method in METHODS]
    for i, image in enumerate(IMAGES):
        weights, logit, own = Reference(variables, pool).differentiate(image)
        n = weights.shape[-1]
        rollout = relevance = np.eye(n)
        for attention, gradient in zip(weights, logit, strict=True):
            skipped = attention.mean(axis=0) + np.eye(n)
            rollout = skipped / skipped.sum(axis=1, keepdims=True) @ rollout
            relevance = relevance + np.maximum(attention * gradient, 0).mean(axis=0) @ relevance
        others = n - 4
        pooled = [matrix[0] if others else matrix.mean(axis=0) for matrix in (rollout, relevance)]
        for given, expected in zip(maps, [*pooled, np.maximum(own, 0).mean(axis=(1, 2)).sum(axis=0)], strict=True):
            expected = expected[others:].reshape(2, 2, 1)
            assert np.ptp(expected) > 1e-3
            np.testing.assert_allclose(given[i], expected, atol=1e-5 * expected.max())


def test_rollout_is_a_share_of_each_patch_and_the_same_for_every_class():
    model = make_vit(pool="mean")
    a = saliency.all_classes(saliency.AttentionRollout())(model, draw_large(model), IMAGES)
    np.testing.assert_allclose(a.values.sum(axis=(2, 3, 4)), 1, atol=1e-6)
    np.testing.assert_array_equal(a.values, np.broadcast_to(a.values[:, :1], a.values.shape))
    np.testing.assert_allclose(a.score, model.apply(draw_large(model), IMAGES), atol=1e-5)


def test_without_gradients_each_token_is_relevant_for_itself_alone():
    """With a last layer of zeros. The class token has nothing of the patches then, the mean an equal part of each."""
    model = make_vit()
    params = draw_large(model)["params"]
    variables = {"params": params | {"logits": jax.tree.map(np.zeros_like, params["logits"])}}
    for pool, expected in (("class_token", 0), ("mean", 0.2)):
        a = saliency.GenericAttention(pool)(model, variables, IMAGES)
        np.testing.assert_allclose(a.values, expected, atol=1e-7)


def test_the_row_can_be_chosen():
    """The mean of all tokens of a model with a class token is not that token's row."""
    model = make_vit()
    variables = draw_large(model)
    default, token, mean = (
        saliency.AttentionRollout(pool)(model, variables, IMAGES).values for pool in (None, "class_token", "mean")
    )
    np.testing.assert_array_equal(default, token)
    assert np.abs(mean - token).max() > 1e-3


@pytest.mark.parametrize("method", METHODS[1:], ids=lambda method: type(method).__name__)
def test_checkpoints_change_nothing(method):
    variables = draw_large(make_vit())
    plain, checkpointed = (method(make_vit(remat=remat), variables, IMAGES).values for remat in (False, True))
    np.testing.assert_allclose(checkpointed, plain, atol=1e-6)


class Block(nn.Module):
    """Attention of one head without an axis for heads, and a checkpoint inside."""

    @nn.compact
    def __call__(self, x, _=None):
        def attend(x):
            return jax.nn.softmax(jnp.einsum("bqc,bkc->bqk", x, x)) @ x

        return x + jax.checkpoint(attend)(nn.Dense(3, name="dense")(x)), None


class Looped(nn.Module):
    """Blocks in a loop of the program, or one after the other."""

    scan: bool

    @nn.compact
    def __call__(self, images, train=False):
        x = images.reshape(2, 2, 4, 2, 4).mean(axis=(2, 4)).reshape(2, 4, 1) * jnp.arange(1.0, 4)[None, None]
        if self.scan:
            loop = nn.scan(Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)
            x, _ = loop(name="blocks")(x, None)
        else:
            for i in range(3):
                x, _ = Block(name=f"block{i}")(x)
        return x.max(axis=1)


def test_layers_in_a_loop_are_layers_too():
    scanned = draw_variables(Looped(True), SHAPE)
    slices = {f"block{i}": jax.tree.map(lambda x, i=i: x[i], scanned["params"]["blocks"]) for i in range(3)}

    def apply(variables, images):
        return Looped(True).apply(variables, images)

    for method in METHODS[:2]:
        expected = method(Looped(False), {"params": slices}, IMAGES).values
        assert np.ptp(expected) > 1e-3
        for model in (Looped(True), apply):
            np.testing.assert_allclose(method(model, scanned, IMAGES).values, expected, atol=1e-6)


class Windows(nn.Module):
    """Attention inside of each half of the image, then between both halves; `whole` attends to all tokens first."""

    whole: bool

    @nn.compact
    def __call__(self, images, train=False):
        x = images.reshape(2, 2, 4, 2, 4).mean(axis=(2, 4)).reshape(2, 4, 1) + jnp.zeros((1, 1, 3))
        if self.whole:
            x = jax.nn.softmax(x @ x.swapaxes(1, 2)) @ x
        x = x.reshape(2, 2, 2, 3)
        return (jax.nn.softmax(x @ x.swapaxes(2, 3)) @ x).mean(axis=(1, 2))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Net(), r"this model has no attention, .* the shapes of its softmaxes are none; use a method for all models"),
        (Windows(True), r"attention weights of shapes \[2, 4, 4\], \[2, 2, 2, 2\]: expected \[b, heads, n, n\]"),
        (Windows(False), r"2 tokens of images of shape \[2, 8, 8, 1\] can be no grid"),
    ],
    ids=["none", "windows", "small"],
)
def test_models_with_other_attention_are_named(model, message):
    variables = draw_variables(model, SHAPE)
    for method in METHODS[:2]:
        with pytest.raises(UserError, match=message):
            method(model, variables, IMAGES)


def test_legrad_needs_blocks():
    model = make_vit()
    variables = draw_large(model)

    def apply(variables, images):
        return model.apply(variables, images)

    with pytest.raises(UserError, match="function is not a Linen module"):
        saliency.LeGrad()(apply, variables, IMAGES)
    with pytest.raises(UserError, match="this model has no attention"):
        saliency.LeGrad()(Net(), draw_variables(Net(), SHAPE), IMAGES)
    with pytest.raises(UserError, match="attention 1 of 3 is in no module that maps tokens to tokens"):
        saliency.LeGrad()(Looped(True), draw_variables(Looped(True), SHAPE), IMAGES)
    with pytest.raises(UserError, match="'attention0' and 'attention1' have operations between them"):
        saliency.LeGrad()(Flat(), draw_variables(Flat(), SHAPE), IMAGES)


class Flat(nn.Module):
    """Two layers of attention without modules for blocks."""

    @nn.compact
    def __call__(self, images, train=False):
        x = images.reshape(2, 2, 4, 2, 4).mean(axis=(2, 4)).reshape(2, 4, 1) + jnp.zeros((1, 1, 4))
        for i in range(2):
            x = x + nn.MultiHeadDotProductAttention(2, name=f"attention{i}")(x)
        return x.mean(axis=1)


def test_grouped_heads_are_heads():
    """`jax.nn.dot_product_attention` has an axis of groups before the batch axis, for heads that share their keys."""
    random = np.random.default_rng(0)
    variables = random.standard_normal((3, 1, 4, 5), np.float32)

    def mix(grouped, variables, images):
        x = images.reshape(2, 2, 4, 2, 4).mean(axis=(2, 4)).reshape(2, 4, 1, 1)
        query, key, value = (3 * x * part[None, :, :heads] for part, heads in zip(variables, (4, 2, 2), strict=True))
        if grouped:
            mixed = jax.nn.dot_product_attention(query, key, value)
        else:
            key, value = (jnp.repeat(part, 2, axis=2) for part in (key, value))
            weights = jax.nn.softmax(jnp.einsum("bqhc,bkhc->bhqk", query, key) / np.sqrt(5))
            mixed = jnp.einsum("bhqk,bkhc->bqhc", weights, value)
        return jnp.tanh(mixed).max(axis=1).sum(axis=1)

    for method in METHODS[:2]:
        grouped, separate = (method(partial(mix, flag), variables, IMAGES).values for flag in (True, False))
        assert np.ptp(separate) > 1e-3
        np.testing.assert_allclose(grouped, separate, atol=1e-6)


@pytest.mark.parametrize("method", [saliency.GenericAttention, saliency.LeGrad])
def test_the_gradients_of_all_classes_are_not_in_memory_together(method):
    model = Vit(patch=1, width=8, depth=2, heads=4, classes=64, image_size=(8, 8), mlp_ratio=2.0)
    variables = draw_variables(model, SHAPE)
    explain = saliency.all_classes(method(max_rows=2))
    program = jax.jit(lambda variables, images: explain(model, variables, images).values).lower(variables, IMAGES)
    of_a_target = 2 * 2 * 4 * 64**2 * 4  # bytes of two images, two layers and four heads
    assert program.compile().memory_analysis().temp_size_in_bytes < 8 * of_a_target
