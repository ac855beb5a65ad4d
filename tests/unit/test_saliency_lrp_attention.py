"""LRP of transformers: LXT's numbers, conservation, and where each option differs."""

from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import Primitive
from support.networks import draw_variables

from jaxclf import saliency
from jaxclf.errors import UserError
from jaxclf.models import Vit
from jaxclf.saliency import Lrp
from jaxclf.saliency.methods.lrp_layer_rules import LayerRules, Relevant
from jaxclf.saliency.methods.lrp_rules import Relevances

LXT = np.load(Path(__file__).parents[1] / "fixtures/lxt_rules.npz")
RANDOM = np.random.default_rng(0)
VIT = Vit(patch=4, width=8, depth=1, heads=2, classes=3, image_size=(8, 8))
IMAGES = RANDOM.random((2, 8, 8, 1), np.float32)


def propagate(function, arrays, relevance, **options):
    """The relevance of some arrays, from that of what a function puts out."""
    options = {"epsilon": 0.0, "constant_attention": False, "residual_gamma": 0.0} | options

    def compute_shares(*shares):
        relevances = Relevances(LayerRules(None, {}), **options)
        return relevances.lower(relevances.run(function, *map(Relevant, arrays, shares))).share

    return jax.jit(lambda *x: jax.vjp(compute_shares, *map(jnp.ones_like, arrays))[1](*x))(jnp.asarray(relevance))


def normalize_root_mean_square(x):
    return x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-6) * LXT["scale"][None, None]


RULES = {
    "softmax": (jax.nn.softmax, "x"),
    "matmul": (jnp.matmul, "xy"),
    "linear": (lambda x: x @ LXT["weights"].T + LXT["biases"][None, None], "x"),
    "add": (jnp.add, "xz"),
    "mul": (jnp.multiply, "xz"),
    "mean": (lambda x: x.mean(-1, keepdims=True), "x"),
    "layer_norm": (
        lambda x: nn.LayerNorm(1e-6, param_dtype=x.dtype).apply(
            {"params": {"scale": LXT["scale"], "bias": LXT["shift"]}}, x
        ),
        "x",
    ),
    "rms_norm": (normalize_root_mean_square, "x"),
    "normalize": (lambda x: x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12), "x"),
}


@pytest.mark.parametrize("rule", RULES)
def test_lxt_s_explicit_rules(rule):
    """What AttnLRP's authors publish, to rounding in float64; what the numbers are, tests/fixtures says."""
    function, names = RULES[rule]
    with jax.enable_x64(True):
        found = propagate(function, [LXT[name] for name in names], LXT[f"{rule} relevance"])
        for i, relevance in enumerate(found):
            np.testing.assert_allclose(relevance, LXT[f"{rule} {i}"], rtol=1e-6, atol=1e-12)


def test_masked_places_of_a_softmax_get_nothing():
    mask = np.array([True, True, False, True])[None]
    x, relevance = RANDOM.normal(size=(2, 2, 4)).astype(np.float32)
    (expected,) = propagate(jax.nn.softmax, [x[:, mask[0]]], relevance[:, mask[0]])
    for softmax in (
        lambda x: jax.nn.softmax(jnp.where(mask, x, -jnp.inf)),
        lambda x: jax.nn.softmax(jnp.where(mask, x, jnp.finfo(x.dtype).min)),
        lambda x: jax.nn.softmax(x, where=mask),
        lambda x: jax.nn.softmax(x + np.where(mask, 0, -np.inf).astype(np.float32)),
    ):
        (found,) = propagate(softmax, [x], np.where(mask, relevance, 0))
        np.testing.assert_allclose(found[:, mask[0]], expected, rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(found[:, 2], [0, 0])


@pytest.mark.parametrize("gamma", [0.1, 1.0, 10.0])
def test_a_sum_of_branches_grows_by_at_most_1_plus_2_over_gamma(gamma):
    """Conserved, and bounded also where branches cancel, for which the plain rule has no bound."""
    a = RANDOM.normal(size=1000).astype(np.float32)
    b = -a * (1 + RANDOM.choice([-1, 1], 1000) * RANDOM.uniform(1e-4, 1e-3, 1000)).astype(np.float32)
    relevance = RANDOM.normal(size=1000).astype(np.float32)
    first, second = propagate(jnp.add, [a, b], relevance, residual_gamma=gamma)
    np.testing.assert_allclose(first + second, relevance, rtol=1e-4, atol=1e-5 / gamma)
    growth = (np.abs(first) + np.abs(second)) / np.abs(relevance)
    assert growth.max() <= (1 + 2 / gamma) * (1 + 1e-4)
    assert growth.max() > 0.95 * (1 + 2 / gamma)
    plain = propagate(jnp.add, [a, b], relevance)
    assert (sum(map(np.abs, plain)) / np.abs(relevance)).max() > 1000
    expected = a * (1 + gamma * (np.sign(a) == np.sign(a + b))), b * (1 + gamma * (np.sign(b) == np.sign(a + b)))
    np.testing.assert_allclose(first, expected[0] / sum(expected) * relevance, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("attention", ["attn", "cp"])
def test_rules_of_layers_are_not_those_of_attention(attention):
    x = RANDOM.normal(size=(2, 4, 3)).astype(np.float32)

    def attend(_, x):
        return (jax.nn.softmax(x @ x.transpose(0, 2, 1)) @ x).mean(axis=1)

    flat, plain = (Lrp(rule, attention=attention)(attend, {}, x, 1).values for rule in ("flat", "epsilon"))
    np.testing.assert_array_equal(flat, plain)


CONSTANT = [
    Lrp(attention="cp", residual_gamma=1.0),
    Lrp(attention="cp", rules={"patch_embedding": "z_box", "block1/mlp": "flat", "logits": "w_squared"}),
]


def make_unbiased(model, shape):
    """Variables without biases and positions, whose shares of relevance do not reach pixels."""
    return jax.tree_util.tree_map_with_path(
        lambda path, x: 0 * x if path[-1].key in ("bias", "positions") else x, draw_variables(model, shape)
    )


@pytest.mark.parametrize("method", CONSTANT, ids=range(len(CONSTANT)))
def test_relevance_is_conserved_without_biases(method):
    """Where attention is constant: the expansion of softmax leaves a rest."""
    model = VIT.clone(pool="mean")
    variables = make_unbiased(model, IMAGES.shape)
    a = saliency.all_classes(method)(model, variables, IMAGES)
    scale = np.abs(a.values).sum(axis=(2, 3, 4))
    np.testing.assert_allclose(a.values.sum(axis=(2, 3, 4)), a.score, atol=1e-5 * scale.max(), rtol=1e-4)
    assert np.abs(a.score).max() > 1e-2


@pytest.mark.parametrize("name", ["dot_product_attention_fwd_wrapper", "dot_product_attention_fp8_fwd_wrapper"])
@pytest.mark.parametrize("method", [Lrp(), saliency.DeepLift()], ids=["lrp", "deep_lift"])
def test_the_attention_of_cudnn_is_named_with_its_alternative(method, name):
    """Its primitives cannot be traced without a GPU, so one of the same name takes their place."""
    primitive = Primitive(name)
    primitive.multiple_results = True
    primitive.def_abstract_eval(lambda x: [x])
    with pytest.raises(UserError, match=r"cannot look into the attention of cuDNN.*set implementation='xla'"):
        method(lambda _, x: primitive.bind(x)[0], {}, np.ones((2, 3), np.float32), 0)
