"""Sanity checks of methods: what ignores the weights is found out, and what a shift of the input changes."""

from dataclasses import dataclass
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from support.networks import raise_biases
from support.saliency import limited, traced_rows

from jaxclf import saliency
from jaxclf.errors import UserError
from jaxclf.models import Cnn, Mlp
from jaxclf.saliency import input_invariance, parameter_randomization
from jaxclf.saliency.base import BaseMethod
from jaxclf.saliency.methods.guided_backprop import GuidedBackprop
from jaxclf.saliency.metrics.sanity import find_parameter_layers, replace_layers
from jaxclf.saliency.metrics.similarity import compute_rank_correlation, compute_ssim
from jaxclf.saliency.query import make_attribution

B = 3
MODEL = Cnn(features=(2,), dense=(4,), classes=3)
IMAGES = np.random.default_rng(0).integers(0, 256, (B, 8, 8, 1), np.uint8)
KEY = jax.random.key(3)
NAMES = ("logits", "dense1", "conv1")


@dataclass(frozen=True)
class Edges(BaseMethod):
    """How each pixel differs from the one before it: a picture of the image that knows nothing of the model."""

    def explain(self, query):
        query, score = query.resolve_targets()
        edges = query.images - jnp.roll(query.images, 1, axis=2)
        return make_attribution(query, jnp.broadcast_to(edges[:, None], (*score.shape, *edges.shape[1:])), score, 1)


@pytest.fixture(scope="module")
def variables():
    shaped = MODEL.init(jax.random.key(0), IMAGES)
    return raise_biases(jax.tree.map(lambda x: x + 0.1 * jax.random.normal(jax.random.key(1), x.shape), shaped))


def test_rank_correlation_is_spearmans_with_ties(random):
    x, y = random.integers(-3, 4, (2, 6, 40)).astype(np.float32)
    y[1], y[2] = np.exp(x[1]), -x[2]
    expected = [scipy.stats.spearmanr(*pair).statistic for pair in zip(x, y, strict=True)]
    np.testing.assert_allclose(compute_rank_correlation(x, y), expected, atol=1e-6)
    np.testing.assert_array_equal(compute_rank_correlation(x, np.full_like(x, 0.1)), 0)


@pytest.mark.parametrize("shape", [(10, 12), (6, 9), (3, 3), (20,)])
def test_structural_similarity_is_the_mean_over_windows(random, shape):
    """Written out for each window, as scikit-image has it by default for data that span two; on maps of -1 to 1."""
    x, y = random.normal(size=(2, 2, 3, *shape)).astype(np.float32)
    sides = [min(7, size if size % 2 else size - 1) for size in shape]

    def similarity(x, y):
        x, y = (z / np.abs(z).max() for z in (x, y))
        found = []
        for corner in np.ndindex(*(size - side + 1 for size, side in zip(shape, sides, strict=True))):
            window = tuple(slice(i, i + side) for i, side in zip(corner, sides, strict=True))
            (xx, xy), (_, yy) = np.cov(x[window].ravel(), y[window].ravel())
            mx, my = x[window].mean(), y[window].mean()
            found.append(
                (2 * mx * my + 0.02**2) * (2 * xy + 0.06**2) / ((mx**2 + my**2 + 0.02**2) * (xx + yy + 0.06**2))
            )
        return np.mean(found)

    expected = [[similarity(x[i, j], y[i, j]) for j in range(3)] for i in range(2)]
    np.testing.assert_allclose(compute_ssim(x, y), expected, atol=1e-5)
    np.testing.assert_allclose(compute_ssim(x, 5 * x), 1, rtol=1e-6)
    np.testing.assert_array_equal(compute_ssim(0 * x, 0 * x), 1)


def test_layers_are_randomized_from_the_output_down_and_the_others_stay_bit_for_bit(variables):
    fresh = MODEL.init(jax.random.key(7), IMAGES)["params"]
    layers = find_parameter_layers(MODEL, variables, IMAGES)
    assert layers == tuple((name,) for name in NAMES)
    for stage in range(3):
        params = replace_layers(variables["params"], fresh, layers, jnp.int32(stage))
        for i, name in enumerate(NAMES):
            jax.tree.map(
                np.testing.assert_array_equal, params[name], (fresh if i <= stage else variables["params"])[name]
            )


class Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.tanh(nn.Dense(4, name="inner")(x)) + self.param("shift", nn.initializers.normal(), (4,))[None]


class Nested(nn.Module):
    """Names that do not sort in the order they run; two modules alike; one that runs twice; a batch normalisation."""

    block: type[nn.Module] = Block

    @nn.compact
    def __call__(self, images, train=False):
        x = images.reshape(len(images), -1)
        x = self.block(name="mid")(nn.Dense(4, name="z_first")(x))
        twice = nn.Dense(4, name="twice")
        x = self.block(name="a_last")(twice(x))
        x = nn.BatchNorm(use_running_average=not train, name="norm")(twice(x))
        return nn.Dense(3, name="m_out")(x) * self.param("scale", nn.initializers.ones, ())


@pytest.mark.parametrize("block", [Block, nn.remat(Block), nn.jit(Block)], ids=["plain", "remat", "jit"])
def test_layers_come_in_the_order_they_end_whatever_their_names(block):
    model = Nested(block)
    variables = model.init(jax.random.key(0), np.zeros((1, 2, 2, 1), np.float32))
    for _ in range(2):  # compiled the second time
        names = ["/".join(path) for path in find_parameter_layers(model, variables, IMAGES[:, :2, :2])]
        assert names == ["", "m_out", "norm", "twice", "a_last", "a_last/inner", "mid", "mid/inner", "z_first"]


def test_parameters_change_and_running_means_do_not():
    model, images = Nested(), IMAGES[:, :2, :2]
    variables = model.init(jax.random.key(0), images / 255)
    variables["batch_stats"] = jax.tree.map(lambda x: x + 1.0, variables["batch_stats"])
    found = parameter_randomization(saliency.Gradient(), model, variables, images, key=KEY, targets=1)
    assert found.layers[0] == "Nested"
    fresh = model.init(jax.random.fold_in(KEY, jnp.int32(-1)), images / 255)["params"]
    random = saliency.Gradient()(model, {**variables, "params": fresh}, images, 1)
    trained = saliency.Gradient()(model, variables, images, 1)
    expected = [
        scipy.stats.spearmanr(*pair).statistic
        for pair in zip(random.values.reshape(B, -1), trained.values.reshape(B, -1), strict=True)
    ]
    np.testing.assert_allclose(found.rank_correlation[-1], expected, atol=1e-6)


def test_what_ignores_the_model_is_found_out(variables):
    """Its maps stay the same at every layer; the gradient's do not."""
    found = parameter_randomization(Edges(), MODEL, variables, IMAGES, key=KEY)
    assert found.layers == NAMES
    assert found.rank_correlation.shape == found.ssim.shape == (3, B)
    np.testing.assert_allclose(found.rank_correlation, 1, atol=1e-6)
    np.testing.assert_allclose(found.ssim, 1, atol=1e-6)
    gradient = parameter_randomization(saliency.Gradient(), MODEL, variables, IMAGES, key=KEY)
    for similarity in gradient[1:]:
        assert np.all(np.abs(similarity) < 0.99)
        assert np.all(np.abs(similarity[-1]) < 0.5)


def test_each_stage_is_the_method_on_those_weights(variables):
    """The class stays that of the trained model, also where the random one would predict another."""
    method = saliency.IntegratedGradients(steps=2)
    found = parameter_randomization(method, MODEL, variables, IMAGES, key=KEY)
    trained = method(MODEL, variables, IMAGES)
    targets = np.argmax(MODEL.apply(variables, IMAGES), axis=1)
    fresh = MODEL.init(jax.random.fold_in(KEY, jnp.int32(-1)), IMAGES)["params"]
    layers = find_parameter_layers(MODEL, variables, IMAGES)
    for stage in range(3):
        params = replace_layers(variables["params"], fresh, layers, stage)
        values = method(MODEL, {"params": params}, IMAGES, targets).values
        x, y = (z.reshape(B, 1, 8, 8) for z in (values, trained.values))
        np.testing.assert_allclose(found.ssim[stage], compute_ssim(x, y)[:, 0], atol=1e-4)


def test_flat_images_are_compared_as_the_squares_they_are():
    """Three times a square is colour; what is neither is a line."""
    model = Mlp(features=(5,), classes=3)
    images = np.random.default_rng(1).random((B, 8, 8, 3)).astype(np.float32)
    variables = model.init(jax.random.key(0), images)
    ask = partial(parameter_randomization, saliency.Gradient(), model, variables, key=KEY)
    whole, flat = ask(images), ask(images.reshape(B, -1))
    np.testing.assert_allclose(flat.ssim, whole.ssim, atol=1e-5)
    np.testing.assert_allclose(flat.rank_correlation, whole.rank_correlation, atol=1e-5)
    odd = np.random.default_rng(1).random((B, 7)).astype(np.float32)
    variables = model.init(jax.random.key(0), odd)
    assert np.isfinite(parameter_randomization(saliency.Gradient(), model, variables, odd, key=KEY).ssim).all()


def test_randomization_takes_rows_neighbours_and_noise_as_methods_do(variables):
    method = saliency.SmoothGrad(samples=2)
    ask = partial(parameter_randomization, method, MODEL, variables, key=KEY)
    whole = ask(IMAGES)
    with traced_rows() as rows:
        few = parameter_randomization(limited(method, 2), MODEL, variables, IMAGES, key=KEY)
    assert 0 < max(rows) <= 2
    np.testing.assert_allclose(few.ssim, whole.ssim, atol=1e-4)
    beside = IMAGES / np.float32(255)
    beside[2] = 1e4
    for x, y in zip(ask(beside)[1:], whole[1:], strict=True):
        np.testing.assert_allclose(x[:, :2], y[:, :2], atol=1e-4)
    every = parameter_randomization(saliency.all_classes(Edges()), MODEL, variables, IMAGES, key=KEY)
    assert every.ssim.shape == (3, B, 3)


def test_what_cannot_be_randomized_is_named(variables):
    with pytest.raises(UserError, match="is not a Linen module"):
        parameter_randomization(saliency.Gradient(), MODEL.apply, variables, IMAGES, key=KEY)
    with pytest.raises(UserError, match=r"keys of shape \[3\]: expected one"):
        parameter_randomization(saliency.Gradient(), MODEL, variables, IMAGES, key=jax.random.split(KEY, 3))


METHODS = [
    saliency.Gradient(),
    saliency.SmoothGrad(samples=2),
    saliency.GradCam(),
    GuidedBackprop(),
    saliency.all_classes(saliency.Gradient(score="probability")),
]


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_what_looks_at_slopes_alone_is_invariant(method, variables):
    """With zeros around the convolution, too, and where layers are looked for by name."""
    found = input_invariance(method, MODEL, variables, IMAGES, key=KEY)
    assert found.shape == ((B, 3) if method.every_class else (B,))
    np.testing.assert_allclose(found, 0, atol=1e-4)


class Small(nn.Module):
    @nn.compact
    def __call__(self, images, train=False):
        return nn.Dense(3, name="logits")(nn.tanh(nn.Dense(5, name="dense1")(images)))


@pytest.mark.parametrize("model", [Small(), nn.remat(Small)(), nn.jit(Small)()], ids=["plain", "remat", "jit"])
def test_what_multiplies_by_the_input_is_not(model):
    """By as much as with a first bias that takes the shift back, which is what the paper does."""
    images = np.random.default_rng(1).random((B, 9)).astype(np.float32)
    variables = model.init(jax.random.key(4), images)
    first = variables["params"]["dense1"]
    moved = {"params": variables["params"] | {"dense1": first | {"bias": first["bias"] + first["kernel"].sum(axis=0)}}}
    for method in (saliency.GradientTimesInput(), saliency.IntegratedGradients(steps=4)):
        there = method(model, variables, images).values
        values = method(model, moved, images - 1).values
        expected = np.linalg.norm(values - there, axis=1) / np.linalg.norm(there, axis=1)
        found = input_invariance(method, model, variables, images)
        np.testing.assert_allclose(found, expected, rtol=1e-3)
        assert np.all(found > 0.1)


def test_no_shift_is_no_change_and_a_larger_one_is_a_larger_one(variables):
    """A callable is a model too."""
    ask = partial(input_invariance, saliency.GradientTimesInput(), variables=variables, images=IMAGES)
    np.testing.assert_array_equal(ask(model=MODEL, shift=0.0), 0)
    np.testing.assert_allclose(ask(model=MODEL.apply), ask(model=MODEL), rtol=1e-4)
    assert np.all(ask(model=MODEL, shift=-0.5) < ask(model=MODEL, shift=-5.0))


def test_a_map_of_zeros_is_invariant_and_draws_need_a_key(variables):
    zeros = jax.tree.map(jnp.zeros_like, variables)
    np.testing.assert_array_equal(input_invariance(saliency.GradientTimesInput(), MODEL, zeros, IMAGES), 0)
    found = parameter_randomization(saliency.Gradient(), MODEL, zeros, IMAGES, key=KEY)
    assert np.isfinite(found.ssim).all()
    np.testing.assert_array_equal(found.rank_correlation, 0)
    with pytest.raises(UserError, match="pass key="):
        input_invariance(saliency.SmoothGrad(), MODEL, variables, IMAGES)
