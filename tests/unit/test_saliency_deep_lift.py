"""DeepLIFT: complete to rounding whatever the model is made of, peers' numbers, and no example sees another."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.networks import draw_variables

from jaxclf import saliency
from jaxclf.errors import UserError
from jaxclf.models.layers import MaxPool
from jaxclf.saliency import DeepLift

RANDOM = np.random.default_rng(0)
W = RANDOM.normal(size=(6, 6)).astype(np.float32)


def explained(function, x, baseline=0.0, target=0, **fields):
    """DeepLIFT of a function of images alone."""
    return DeepLift(**fields)(
        lambda _, images: function(images), {}, np.asarray(x, np.float32), target, baseline=baseline
    )


def test_captum_s_sum_of_relus():
    """tests/attr/test_deeplift_basic.py: 2 relu(x1) + 2 relu(x2 - 1.5), with the multipliers (2, 0.5)."""
    a = explained(lambda x: 2 * nn.relu(x[:, :1]) + 2 * nn.relu(x[:, 1:] - 1.5), [[1, 2]])
    np.testing.assert_allclose(a.values, [[2, 1]], rtol=1e-6)
    np.testing.assert_allclose(a.delta, [0], atol=1e-6)
    np.testing.assert_array_equal(a.evaluations, [2])


@pytest.mark.parametrize(
    "pool",
    [
        lambda x: x.max(axis=1, keepdims=True),
        lambda x: nn.max_pool(x[:, :, None], (4,), (4,))[:, :, 0],
        lambda x: MaxPool(2).apply({}, x.reshape(-1, 2, 2, 1)).reshape(-1, 1),
        lambda x: jnp.maximum(jnp.maximum(x[:, :1], x[:, 1:2]), jnp.maximum(x[:, 2:3], x[:, 3:])),
        lambda x: -(-x).min(axis=1, keepdims=True),
        lambda x: jnp.sort(x, axis=1)[:, 3:],
    ],
    ids=["max", "max_pool", "MaxPool", "maximum", "min", "sort"],
)
def test_captum_s_maximum(pool, request):
    """Falls are owed to the largest at the baseline, each example to its own."""
    baseline = np.array([[1, 2, 3, 9], [4, 8, 6, 7]], np.float32)
    if "sort" in request.node.callspec.id:
        with pytest.raises(UserError, match="no rule for 'sort'"):
            explained(pool, np.ones((2, 4)), baseline)
        return
    a = explained(pool, np.ones((2, 4)), baseline)
    np.testing.assert_array_equal(a.values, [[0, 0, 0, -8], [0, -7, 0, 0]])
    rise = explained(pool, baseline, np.ones((2, 4), np.float32))
    np.testing.assert_array_equal(rise.values, [[0, 0, 0, 8], [0, 7, 0, 0]])


def test_all_ways_to_pool_are_one():
    images, baseline = RANDOM.random((2, 3, 8, 8, 2), np.float32)
    v = nn.Conv(3, (3, 3)).init(jax.random.key(0), images)

    def with_pool(pool):
        def function(x):
            return nn.relu(pool(nn.relu(nn.Conv(3, (3, 3)).apply(v, x)))).sum(axis=(1, 2))

        return explained(function, images, baseline)

    def by_window(x):
        return x.reshape(-1, 4, 2, 4, 2, 3).max(axis=(2, 4))

    first, *others = (
        with_pool(pool) for pool in (MaxPool(2).bind({}), lambda x: nn.max_pool(x, (2, 2), (2, 2)), by_window)
    )
    np.testing.assert_allclose(first.delta, np.zeros(3), atol=1e-5)
    for other in others:
        np.testing.assert_allclose(other.values, first.values, rtol=1e-5, atol=1e-6)


def test_linear_scores_are_split_exactly():
    x, baseline = RANDOM.normal(size=(2, 3, 6)).astype(np.float32)
    a = explained(lambda x: x @ W + 0.7, x, baseline, target=2)
    np.testing.assert_allclose(a.values, W[:, 2] * (x - baseline), rtol=1e-5, atol=1e-6)


def two_layers(weights, x):
    return nn.relu(x @ weights[0]) @ weights[1]


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000))
def test_without_biases_from_zero_it_is_the_gradient_times_input(seed):
    """Such a ReLU network is linear on the way; so it is the integrated gradient too."""
    x, *weights = np.random.default_rng(seed).normal(size=(3, 5, 5)).astype(np.float32)
    a = DeepLift()(two_layers, weights, x, 1)
    for method in (saliency.GradientTimesInput(), saliency.IntegratedGradients(steps=3)):
        np.testing.assert_allclose(a.values, method(two_layers, weights, x, 1).values, rtol=1e-4, atol=1e-5)


CURVES = {
    "relu": nn.relu,
    "relu6": nn.relu6,
    "tanh": jnp.tanh,
    "sigmoid": nn.sigmoid,
    "gelu": nn.gelu,
    "gelu by erf": lambda x: nn.gelu(x, approximate=False),
    "silu": nn.silu,
    "elu": nn.elu,
    "selu": nn.selu,
    "leaky_relu": nn.leaky_relu,
    "softplus": nn.softplus,
    "mish": lambda x: x * jnp.tanh(nn.softplus(x)),
    "hard_tanh": nn.hard_tanh,
    "hard_swish": nn.hard_swish,
    "log_sigmoid": nn.log_sigmoid,
    "clip": lambda x: jnp.clip(x, -0.3, 0.5),
    "square": lambda x: x**2,
    "cube": lambda x: x * x * x,
    "square root": lambda x: jnp.sqrt(jnp.abs(x)),
    "reciprocal": lambda x: 1 / (x**2 + 1),
    "power": lambda x: jnp.exp(x) ** 0.3,
    "step": lambda x: jnp.where(x > 0.1, 1.0, 0.0),
    "where": lambda x: jnp.where(x > 0.2, x, 0.1 * x - 1),
}


@pytest.mark.parametrize("name", CURVES)
def test_a_function_of_one_number_has_the_slope_of_its_secant(name):
    """Written as one function, or of several operations: the multiplier is the same."""
    curve = CURVES[name]
    x, baseline = 2 * RANDOM.normal(size=(2, 4, 6)).astype(np.float32)
    signs = np.array([1, -1, 2, 1, 1, -3], np.float32)
    a = explained(lambda x: (curve(x) * signs[None]).sum(axis=1, keepdims=True), x, baseline)
    np.testing.assert_allclose(a.values, (curve(x) - curve(baseline)) * signs[None], rtol=1e-4, atol=1e-5)


def test_where_nothing_changes_it_is_the_gradient():
    """Pixels that change, but not what the curve is taken of."""
    x, baseline = np.array([[1.0, 3.0]], np.float32), np.array([[2.0, 2.0]], np.float32)
    slope = 1 - np.tanh(2.0) ** 2
    a = explained(lambda x: jnp.tanh(x.sum(axis=1, keepdims=True) / 2), x, baseline)
    np.testing.assert_allclose(a.values, [[-slope / 2, slope / 2]], rtol=1e-5)
    a = explained(lambda x: nn.relu(x.sum(axis=1, keepdims=True) - 4), x, baseline)
    np.testing.assert_array_equal(a.values, [[0, 0]])  # as the derivative of jax.nn.relu at 0


def test_a_product_is_shared_with_the_other_at_its_mean():
    x, baseline = np.array([[3.0, 5.0]], np.float32), np.array([[1.0, 2.0]], np.float32)
    for product in (lambda x: x[:, :1] * x[:, 1:], lambda x: jnp.einsum("bi,bi->b", x[:, :1], x[:, 1:])[:, None]):
        np.testing.assert_allclose(explained(product, x, baseline).values, [[2 * 3.5, 3 * 2]], rtol=1e-6)
    a = explained(lambda x: x[:, :1] / x[:, 1:], x, baseline)
    np.testing.assert_allclose(a.values, [[2 * (1 / 5 + 1 / 2) / 2, (1 / 5 - 1 / 2) * 2]], rtol=1e-6)


class Net(nn.Module):
    """A bit of everything. `mix` is what nets do with several numbers at once."""

    activation: object
    mix: object = staticmethod(lambda x: x)

    @nn.compact
    def __call__(self, x, train=False):
        x = self.activation(nn.BatchNorm(use_running_average=True)(nn.Conv(4, (3, 3))(x)))
        x = nn.max_pool(x, (3, 3), (2, 2), padding="SAME")
        x = nn.avg_pool(self.mix(self.activation(nn.Conv(4, (3, 3))(x)) + x), (2, 2), (1, 1))
        return nn.Dense(5)(self.activation(nn.Dense(6)(x.max(axis=(1, 2)))))


MIXES = {
    "softmax": nn.softmax,
    "logsumexp": lambda x: x - jax.nn.logsumexp(x, axis=-1, keepdims=True),
    "normalised": lambda x: (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-2),
    "gated": lambda x: x * nn.sigmoid(x[..., ::-1]),
    "maxout": lambda x: jnp.maximum(x, x[..., ::-1]) - jnp.minimum(x, 0.5 * x[..., ::-1]),
    "where": lambda x: jnp.where(x[..., ::-1] > x, x[..., ::-1], x) + jnp.where(x > x[..., ::-1], 0.3, x),
    "logaddexp": lambda x: jnp.logaddexp(x, x[..., ::-1]),
    "attention": lambda x: jnp.einsum("bhwc,bhvc->bhwv", x, nn.softmax(x, axis=2)),
}


def complete(net, score, images, baseline):
    """Values sum to the change of the score, to rounding."""
    for seed in range(10):  # a draw in a hundred has a dead layer of ReLUs, and values of 0
        variables = draw_variables(net, images.shape, seed)
        a = saliency.all_classes(DeepLift(score=score))(net, variables, images, baseline=baseline)
        scale = float(np.abs(a.values).sum(axis=(2, 3, 4)).max())
        rounding = 4 * np.finfo(np.float32).eps * np.abs(a.score).max()  # of the score, large beside changes at times
        np.testing.assert_allclose(a.delta, np.zeros((2, 5)), atol=3e-6 * scale + rounding)
        if scale > 1e-2:
            break
    assert scale > 1e-2


@pytest.mark.parametrize(
    ("activation", "score"),
    [
        ("relu", "logit"),
        ("relu", "probability"),
        ("relu", "margin"),
        ("tanh", "log_probability"),
        ("gelu", "probability"),
    ],
)
def test_it_is_complete_through_the_head(activation, score):
    images, baseline = RANDOM.random((2, 2, 8, 8, 2), np.float32)
    complete(Net(CURVES[activation]), score, images, baseline)


@pytest.mark.parametrize("mix", MIXES)
def test_it_is_complete_where_numbers_meet(mix):
    images, baseline = RANDOM.random((2, 2, 8, 8, 2), np.float32)
    complete(Net(nn.relu, MIXES[mix]), "margin", images, baseline)


def test_no_example_sees_another():
    """captum's softmax takes a mean, and its max-pooling a gradient, that belong to other examples of the batch."""
    images = RANDOM.random((4, 4, 4, 1), np.float32)
    baseline = images.copy()
    baseline[:, :2] = 0  # below, nothing changes: there captum takes what the first example has

    def function(x):
        x = nn.max_pool(x, (2, 2), (2, 2)).reshape(-1, 4)
        return 2 * nn.softmax(x @ W[:4, :3])

    together = explained(function, images, baseline)
    np.testing.assert_allclose(together.delta, np.zeros(4), atol=1e-6)
    assert np.abs(together.values).max() > 0.01
    others = np.concatenate([images[3:], 5 * RANDOM.random((3, 4, 4, 1), np.float32)])
    beside = explained(function, others, np.concatenate([baseline[3:], np.zeros_like(others[1:])]))
    np.testing.assert_allclose(together.values[3], beside.values[0], rtol=1e-5, atol=1e-7)


def test_softmax_owes_nothing_to_what_all_logits_share():
    logits = RANDOM.normal(size=(3, 4)).astype(np.float32)
    a = explained(lambda x: x, logits + 2, logits, score="log_probability")
    np.testing.assert_allclose(a.values.sum(axis=1), np.zeros(3), atol=1e-6)
    np.testing.assert_allclose(a.score, jax.nn.log_softmax(logits)[:, 0], rtol=1e-5)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda x: jnp.sort(x, axis=1), "sort"),
        (lambda x: x * x.argmax(axis=1, keepdims=True), "argmax"),
        (lambda x: jnp.cumprod(x, axis=1), "cumprod"),
        (lambda x: x**x, "pow"),
        (lambda x: jax.lax.while_loop(lambda x: x[0, 0] < 1, lambda x: 2 * x, x), "while"),
        (lambda x: x * (x > 0), "convert_element_type"),
        (lambda x: jnp.where((x > 0) & (x < 1), x, 0), "and"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_has_no_rule_is_named(function, name):
    with pytest.raises(UserError, match=f"no rule for '{name}'.*IntegratedGradients"):
        explained(function, np.full((2, 3), 0.5))
