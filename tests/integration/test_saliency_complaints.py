"""What users of other attribution libraries complain of, a test for each: the name has the thread that states it.

captum: pytorch/captum, cam: jacobgil/pytorch-grad-cam, quantus: understandable-machine-intelligence-lab/Quantus,
zennit: chr5tphr/zennit, lxt: rachtibat/LRP-eXplains-Transformers, shap: shap/shap; the number is that of the issue.
"""

import resource
import warnings
from functools import cache, partial
from itertools import pairwise

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support.components import ATTENTION_METHODS, CHEAPEST, METHODS
from support.networks import draw_variables
from support.saliency import traced_rows

from jaxclf import saliency
from jaxclf.errors import UserError
from jaxclf.models import Cnn, MaxoutCnn, Mlp, ResNet, SimpsonsCnn, Vit

MODEL = Cnn(features=(2, 3), dense=(6,), classes=4, kernel_size=3)
VIT = Vit(patch=4, width=8, depth=2, heads=2, classes=3, image_size=(8, 8))
CASES = [*((MODEL, method) for method in METHODS), *((VIT, method) for method in ATTENTION_METHODS)]
COMPILED = [case for case in CASES if not case[1].host]
KINDS = np.stack(
    [
        np.zeros((8, 8, 1), np.float32),
        np.ones((8, 8, 1), np.float32),
        np.full((8, 8, 1), 0.5, np.float32),
        np.random.default_rng(0).random((8, 8, 1), np.float32),
        np.eye(8, dtype=np.float32)[..., None],
    ]
)
"""A black, a white, a constant, a random and a binary image."""


@cache
def on_device(model=MODEL):
    """Variables, images and keys on the device: what a program needs is not copied there for it."""
    keys = jax.random.split(jax.random.key(0), len(KINDS))
    return jax.device_put((draw_variables(model, KINDS.shape), KINDS, keys))


def explain(method, variables=None, model=MODEL):
    """The method on images of all kinds."""
    given, images, keys = on_device(model)
    return method(model, variables or given, images, key=keys)


METHOD = saliency.GradientTimesInput()
MEASURES = {
    **{name: lambda v, x, a, k, measure=m: measure(MODEL, v, x, a, key=k) for name, m in saliency.MEASURES.items()},
    "completeness": lambda v, x, a, k: saliency.completeness(a),
    "pointing_game": lambda v, x, a, k: saliency.pointing_game(a, x[..., 0]),
    "relevance_mass_accuracy": lambda v, x, a, k: saliency.relevance_mass_accuracy(a, x[..., 0]),
    "relevance_rank_accuracy": lambda v, x, a, k: saliency.relevance_rank_accuracy(a, x[..., 0]),
    "localization_auc": lambda v, x, a, k: saliency.localization_auc(a, x[..., 0]),
    "top_k_intersection": lambda v, x, a, k: saliency.top_k_intersection(a, x[..., 0], k=5),
    "sensitivity_max": lambda v, x, a, k: saliency.sensitivity_max(METHOD, MODEL, v, x, samples=2, key=k),
    "local_lipschitz": lambda v, x, a, k: saliency.local_lipschitz(METHOD, MODEL, v, x, samples=2, key=k),
    "exact local_lipschitz": lambda v, x, a, k: saliency.local_lipschitz(
        METHOD, MODEL, v, x, exact=True, iterations=2, key=k
    ),
    "input_invariance": lambda v, x, a, k: saliency.input_invariance(METHOD, MODEL, v, x),
    **{
        f"relative_stability of the {of}": lambda v, x, a, k, of=of, layer=layer: saliency.relative_stability(
            METHOD, MODEL, v, x, samples=2, key=k, relative_to=of, layer=layer
        )
        for of, layer in (("input", None), ("output", None), ("representation", "conv2"))
    },
    "random_logit": lambda v, x, a, k: saliency.random_logit(METHOD, MODEL, v, x, key=k),
}


def close(values, expected, rtol=1e-6):
    """They agree to a share of the largest value."""
    np.testing.assert_allclose(values, expected, rtol=0, atol=rtol * np.abs(expected).max())


@pytest.mark.parametrize(("b", "side", "rows"), [(1, 32, 25), (512, 8, None)])
def test_captum_245_538_632_1350_memory_does_not_grow_with_steps(b, side, rows):
    images = np.zeros((b, side, side, 1), np.float32)
    variables = draw_variables(MODEL, images.shape)

    def measure_memory(steps):
        method = saliency.IntegratedGradients(steps=steps, max_rows=rows)
        program = jax.jit(method, static_argnums=0).lower(MODEL, variables, images).compile()
        return program.memory_analysis().temp_size_in_bytes

    assert 0 < measure_memory(500) <= 1.05 * measure_memory(50)


class Reused(nn.Module):
    """Four layers with a ReLU: modules of their own, one module for all, or one function."""

    kind: str

    @nn.compact
    def __call__(self, x, train=False):
        one = Activation(name="relu")
        relus = {
            "modules": [Activation(name=f"relu{i}") for i in range(4)],
            "module": [one] * 4,
            "function": [nn.relu] * 4,
        }
        for i, relu in enumerate(relus[self.kind]):
            x = relu(nn.Dense(6, name=f"dense{i}")(x))
        return nn.Dense(3, name="logits")(x)


class Activation(nn.Module):
    def __call__(self, x):
        return jnp.maximum(x, 0)


@pytest.mark.parametrize(
    "method",
    [saliency.DeepLift(), saliency.GuidedBackprop(), saliency.Deconvnet(), saliency.Lrp(), saliency.FullGrad()],
    ids=lambda method: type(method).__name__,
)
def test_captum_199_200_480_578_1082_1104_a_reused_or_functional_relu_is_like_any_other(method, random):
    images = random.random((3, 5), np.float32)
    variables = draw_variables(Reused("modules"), images.shape)
    maps = [np.asarray(method(Reused(kind), variables, images).values) for kind in ("modules", "module", "function")]
    assert np.abs(maps[0]).max() > 0
    for a, b in pairwise(maps):
        np.testing.assert_array_equal(a, b)


TABLE = np.random.default_rng(1).normal(size=(9, 6)).astype(np.float32)
OPERATIONS = {
    "elu": nn.elu,
    "gelu": nn.gelu,
    "silu": nn.silu,
    "leaky relu": nn.leaky_relu,
    "softmax": nn.softmax,
    "upsampling": lambda x: jax.image.resize(x.reshape(-1, 2, 3, 1), (len(x), 4, 6, 1), "bilinear").reshape(-1, 24)[
        :, :6
    ],
    "embedding": lambda x: jnp.asarray(TABLE)[jnp.clip(9 * x, 0, 8).astype(int)].mean(axis=2) + x,
    "pooling": lambda x: nn.avg_pool(x[..., None], (2,), (1,), "SAME")[..., 0],
    "layer norm": lambda x: nn.LayerNorm().apply({"params": {"scale": jnp.ones(6), "bias": jnp.ones(6)}}, x),
    "sort": lambda x: jnp.sort(x, axis=1),
    "cumulative sum": lambda x: jnp.cumsum(x, axis=1),
    "cumulative maximum": lambda x: jax.lax.cummax(x, axis=1),
    "modulo": lambda x: x % 0.3,
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_captum_712_1154_1232_each_operation_has_a_rule_or_is_named(name, random):
    images = random.random((2, 6), np.float32)

    def model(variables, x):
        return OPERATIONS[name](x @ variables + 0.1) @ variables

    for method in (saliency.DeepLift(), saliency.FullGrad(), saliency.Lrp()):
        try:
            values = method(model, TABLE[:6], images).values
        except UserError as error:
            assert "no rule for '" in str(error), error
        else:
            assert np.isfinite(values).all()


@pytest.mark.parametrize("method", CHEAPEST.values(), ids=lambda method: type(method).__name__)
def test_captum_637_791_916_zennit_184_every_method_explains_a_vit(method):
    """Those that change the gradients of ReLUs refuse it, for it has none."""
    variables, images = draw_variables(VIT, KINDS.shape), KINDS[2:4]
    if method.host:
        return
    if getattr(method, "layer", None):
        method = type(method)(**vars(method) | {"layer": None})
    call = partial(method, VIT, key=jax.random.key(0))
    if type(method).__name__ in ("GuidedBackprop", "Deconvnet", "GuidedGradCam"):
        with pytest.raises(UserError, match="no ReLU"):
            jax.eval_shape(call, variables, images)
    else:
        assert jax.eval_shape(call, variables, images).score.shape == (2,)


@pytest.mark.parametrize("layer", ["block1", "block1/norm2", "block2/norm1"])
def test_cam_257_355_403_426_511_maps_of_tokens_need_no_function_that_reshapes_them(layer):
    """Two by two patches of four pixels, and the class token is left out."""
    a = saliency.GradCam(layer, relu=False)(VIT, draw_variables(VIT, KINDS.shape), KINDS)
    assert a.values.shape == (len(KINDS), 2, 2, 1)
    assert np.abs(a.values).max() > 0


def test_transformer_explainability_xai_2_relevance_does_not_explode_in_twelve_blocks():
    """With the rule of residual sums; that of one sum is bounded in unit/test_saliency_lrp_attention.py."""
    deep = Vit(patch=4, width=8, depth=12, heads=2, classes=3, image_size=(8, 8))
    variables, images = draw_variables(deep, KINDS.shape), KINDS[1:]  # of a black image, all tokens are alike
    a = saliency.Lrp(residual_gamma=1.0)(deep, variables, images)
    assert (np.abs(a.values).sum(axis=(1, 2, 3)) < 100 * np.abs(a.score)).all()


def test_captum_1334_1413_351_integrals_converge_and_deep_lift_is_complete_on_a_vit():
    """Adaptive integration keeps its tolerance on 100 images."""
    variables = draw_variables(MODEL, KINDS.shape)
    images = np.random.default_rng(0).random((100, 8, 8, 1), np.float32)
    a = saliency.IntegratedGradients(rule="adaptive", tolerance=0.01)(MODEL, variables, images)
    change = a.values.sum(axis=(1, 2, 3)) - a.delta
    assert (np.abs(a.delta) <= 0.01 * np.maximum(1, np.abs(change))).all()
    a = saliency.DeepLift()(VIT, draw_variables(VIT, KINDS.shape), KINDS)
    np.testing.assert_allclose(a.delta, 0, atol=1e-5)


@pytest.mark.parametrize("order", [lambda w, x: x @ w + x, lambda w, x: x + x @ w, lambda w, x: x @ (w + jnp.eye(4))])
def test_zennit_236_captum_143_546_relevance_does_not_double_at_a_skip(order, random):
    weights, images = random.normal(size=(4, 4)).astype(np.float32), random.random((3, 4), np.float32)
    a = saliency.Lrp()(order, weights, images, 1)
    np.testing.assert_allclose(a.values.sum(axis=1), a.score, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(a.values, images * (weights + np.eye(4, dtype=np.float32))[:, 1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "model",
    [
        Mlp(features=(7, 5), classes=3),
        MODEL,
        SimpsonsCnn(features=(2, 3), dense=(4,), classes=4),
        MaxoutCnn(features=(2, 3), kernel_sizes=(3, 1), blocks=(1, 1), dense=(5,), classes=4),
        ResNet(depths=(1, 1), width=4, classes=3),
    ],
    ids=lambda model: type(model).__name__,
)
def test_lxt_27_32_zennit_183_without_biases_relevance_sums_to_the_score(model):
    images = np.random.default_rng(0).random((4, 8, 8, 3), np.float32)
    variables = jax.tree_util.tree_map_with_path(
        lambda path, x: 0 * x if path[-1].key in ("bias", "mean") else x, draw_variables(model, images.shape)
    )
    a = saliency.Lrp(epsilon=1e-12)(model, variables, images)
    assert np.abs(a.score).max() > 0
    close(a.values.sum(axis=(1, 2, 3)), a.score, rtol=1e-4)


CHANGES = {
    "trained": lambda path, x: x,
    "dead ReLUs": lambda path, x: x - 100 if path[-1].key == "bias" and "logits" not in str(path) else x,
    "saturated": lambda path, x: 1000 * x if "logits" in str(path) else x,
}


@pytest.mark.parametrize(("model", "method"), CASES, ids=str)
def test_captum_959_1138_lxt_29_cam_214_every_method_is_finite_on_any_image(model, method):
    for change in CHANGES.values():
        variables = jax.tree_util.tree_map_with_path(change, on_device(model)[0])
        a = explain(method, variables, model)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(a)), change


@pytest.mark.parametrize("name", MEASURES)
def test_captum_959_1138_lxt_29_cam_214_every_measure_is_finite_on_any_image(name):
    for change in CHANGES.values():
        variables, images, keys = jax.tree_util.tree_map_with_path(change, on_device()[0]), *on_device()[1:]
        measured = MEASURES[name](variables, images, explain(METHOD, variables), keys)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(measured)), change


@pytest.mark.parametrize("measure", [saliency.parameter_randomization, saliency.efficient_randomization])
def test_captum_959_1138_lxt_29_cam_214_randomized_parameters_give_finite_numbers_on_any_image(measure):
    for change in CHANGES.values():
        variables = jax.tree_util.tree_map_with_path(change, on_device()[0])
        leaves = jax.tree.leaves(measure(METHOD, MODEL, variables, KINDS, key=jax.random.key(0)))
        assert all(np.isfinite(leaf).all() for leaf in leaves if not isinstance(leaf, str)), change


@pytest.mark.parametrize(("model", "method"), COMPILED, ids=str)
def test_cam_356_quantus_340_357_no_method_copies_between_host_and_device(model, method):
    on_device(model)
    with jax.transfer_guard("disallow"):
        a = explain(method, model=model)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(a))


@pytest.mark.parametrize("name", MEASURES)
def test_cam_356_quantus_340_357_no_measure_copies_between_host_and_device(name):
    variables, images, keys = on_device()
    a = explain(METHOD)
    with jax.transfer_guard("disallow"):
        measured = MEASURES[name](variables, images, a, keys)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(measured))


ALONE = [
    saliency.IntegratedGradients(steps=4),
    saliency.SmoothGrad(samples=4),
    saliency.ExpectedGradients(samples=4),
    saliency.Rise(samples=4, grid=3),
]


@pytest.mark.parametrize("method", ALONE, ids=lambda method: type(method).__name__)
def test_captum_742_cam_144_an_image_has_the_same_map_in_any_batch(method, random):
    """Alone, among 7 or 64, in another order, and on four devices, with its own key."""
    images, keys = random.random((64, 8, 8, 1), np.float32), jax.random.split(jax.random.key(0), 64)
    variables = draw_variables(MODEL, images.shape)
    call = partial(method, MODEL, variables, baseline=np.zeros((1, 8, 8, 1), np.float32))
    whole = np.asarray(call(images, key=keys).values)
    order = random.permutation(64)
    rows = jax.NamedSharding(jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,)), jax.P("data"))
    close(call(images[order], key=keys[order]).values, whole[order])
    close(call(*jax.device_put((images,), rows), key=jax.device_put(keys, rows)).values, whole)
    for chosen in (slice(5, 6), slice(2, 9)):
        close(call(images[chosen], key=keys[chosen]).values, whole[chosen])


def test_captum_171_355_612_all_classes_share_the_forward_pass():
    """Ten gradients cost eleven passes, where single ones take twenty; a thousand classes of a ViT are exact."""
    model = Cnn(features=(8, 16), dense=(32,), classes=10, kernel_size=3)
    images = np.zeros((4, 8, 8, 1), np.float32)
    variables = draw_variables(model, images.shape)

    def count_operations(method):
        return jax.jit(method, static_argnums=0).lower(model, variables, images, 0).compile().cost_analysis()["flops"]

    one, ten = (count_operations(method) for method in (saliency.Gradient(), saliency.all_classes(saliency.Gradient())))
    assert ten <= 6.5 * one
    vit = Vit(patch=4, width=8, depth=1, heads=2, classes=1000, image_size=(8, 8))
    variables = draw_variables(vit, KINDS.shape)
    every = saliency.all_classes(saliency.Gradient())(vit, variables, KINDS[3:4]).values
    for target in (0, 999):
        close(every[:, target], saliency.Gradient()(vit, variables, KINDS[3:4], target).values, rtol=1e-5)


def test_quantus_96_350_357_measures_take_whole_batches_and_compile_once():
    """Each model call has at least all 64 images, and another batch does not trace the model again."""
    images, keys = np.random.default_rng(0).random((2, 64, 8, 8, 1), np.float32), jax.random.key(0)
    variables = draw_variables(MODEL, images.shape[1:])
    a = METHOD(MODEL, variables, images[0])
    calls = (
        lambda x: saliency.deletion(MODEL, variables, x, a),
        lambda x: saliency.road(MODEL, variables, x, a, key=keys),
        lambda x: saliency.sensitivity_max(METHOD, MODEL, variables, x, key=keys),
    )
    for call in calls:
        with traced_rows() as first:
            call(images[0])
        assert min(first) >= 64
        with traced_rows() as second:
            call(images[1])
        assert second == []


def test_zennit_107_innvestigate_273_alpha_beta_by_hand():
    """One unit with the weights (1, -1), the bias -1 and the input (1, 1)."""

    def model(bias, x):
        return x @ jnp.array([[1.0], [-1.0]]) + bias

    images, bias = np.ones((1, 2), np.float32), np.float32([[-1]])
    for alpha, beta, expected in ((1.0, 0.0, (-1, 0)), (2.0, 1.0, (-2, 0.5))):
        a = saliency.Lrp("alpha_beta", alpha=alpha, beta=beta)(model, bias, images, 0)
        np.testing.assert_allclose(a.values[0], expected, rtol=1e-6)


def test_quantus_333_357_road_is_not_zero_and_infidelity_knows_no_scale():
    variables, images, keys = on_device()
    a = explain(saliency.IntegratedGradients(steps=5))
    curve = saliency.road(MODEL, variables, images, a, key=keys, percentages=(10, 50)).curve
    assert (curve > 0).all()
    assert np.ptp(curve[3]) > 0
    measure = partial(saliency.infidelity, MODEL, variables, images, key=keys, samples=9, normalize=True)
    close(measure(a._replace(values=100 * a.values)), measure(a), rtol=1e-4)


def test_cam_78_117_195_captum_866_1055_a_thousand_calls_leak_nothing_and_compile_once():
    variables, images, keys = on_device()
    a, measure = explain(METHOD), partial(saliency.deletion, MODEL, variables, images)
    measure(a)
    with traced_rows() as rows, warnings.catch_warnings():
        warnings.simplefilter("error")
        before = None
        for i in range(1000):
            measure(METHOD(MODEL, variables, images, key=keys))
            if i == 100:  # what the first calls keep is not a leak
                before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert rows == []
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 5 * 1024  # KiB


@pytest.mark.parametrize(
    "method",
    [saliency.Lrp(), saliency.IntegratedGradients(steps=3), saliency.SmoothGrad(samples=2)],
    ids=lambda method: type(method).__name__,
)
def test_zennit_183_cam_356_a_map_can_be_part_of_a_loss(method, random):
    """The derivative of the norm of the map along a direction of the weights is that of finite differences."""
    images, key = random.random((2, 6), np.float32), jax.random.key(0)

    def model(variables, x):
        return jnp.tanh(x @ variables["a"]) @ variables["b"]

    shapes = {"a": (6, 5), "b": (5, 3)}
    variables, way = ({k: random.normal(size=s).astype(np.float32) for k, s in shapes.items()} for _ in range(2))
    loss = jax.jit(lambda variables: (method(model, variables, images, 0, key=key).values ** 2).sum())
    step = 1e-2
    ends = [loss(jax.tree.map(lambda x, d: x + s * d, variables, way)) for s in (-step, step)]  # noqa: B023
    gradient = jax.grad(loss)(variables)
    slope = sum(jax.tree.leaves(jax.tree.map(lambda g, d: (g * d).sum(), gradient, way)))
    np.testing.assert_allclose(slope, (ends[1] - ends[0]) / (2 * step), rtol=2e-2)


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(6, 5, rngs=rngs)
        self.second = nnx.Linear(5, 3, rngs=rngs)

    def __call__(self, x):
        return self.second(nnx.relu(self.first(x)))


def test_shap_2141_modules_of_flax_and_functions_are_explained_alike(random):
    """A Linen module, an NNX module and a function with the same weights."""
    images = random.random((2, 6), np.float32)
    graph, state = nnx.split(Nnx(nnx.Rngs(0)))
    arrays = nnx.to_pure_dict(state)
    linen = Mlp(features=(5,), classes=3)
    names = draw_variables(linen, images.shape)["params"]
    params = dict(zip(names, (arrays["first"], arrays["second"]), strict=True))

    def call_nnx(state, x):
        return nnx.merge(graph, state)(x)

    def compute(arrays, x):
        hidden = nn.relu(x @ arrays["first"]["kernel"] + arrays["first"]["bias"][None])
        return hidden @ arrays["second"]["kernel"] + arrays["second"]["bias"][None]

    for method in (saliency.IntegratedGradients(steps=5), saliency.DeepLift(), saliency.GuidedBackprop()):
        maps = [
            method(model, variables, images).values
            for model, variables in ((linen, {"params": params}), (call_nnx, state), (compute, arrays))
        ]
        for values in maps[1:]:
            close(values, maps[0])
