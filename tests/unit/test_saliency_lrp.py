"""Layer-wise relevance propagation: peers' numbers, each rule written out in NumPy, and where it equals others."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from jaxclf import saliency
from jaxclf.errors import UserError
from jaxclf.models import Cnn
from jaxclf.models.layers import MaxPool
from jaxclf.saliency import Lrp
from jaxclf.saliency.methods.lrp_layer_rules import split_scope

RANDOM = np.random.default_rng(0)
RULES = [Lrp(), Lrp("gamma"), Lrp("z_plus"), Lrp("alpha_beta")]


def explained(function, x, method=None, target=0):
    """LRP of a function of images alone."""
    return (method or Lrp())(lambda _, images: function(images), {}, np.asarray(x, np.float32), target)


@pytest.mark.parametrize(
    ("method", "first", "expected"),
    [
        (Lrp(), 2, [18, 36, 54]),
        (Lrp("gamma", gamma=1.0), -2, [28 / 3, 104 / 3, 52]),
        (Lrp("alpha_beta", alpha=1.0, beta=0.0), -2, [12, 33.6, 50.4]),
        (Lrp("z_plus"), -2, [12, 33.6, 50.4]),
    ],
    ids=str,
)
def test_captum_s_simple_model(method, first, expected):
    """tests/attr/test_lrp.py, SimpleLRPModel: x (1, 2, 3), weights 2 but for one, and 3. Its rows are outputs."""
    w1, w2 = np.full((3, 3), 2, np.float32), np.full((3, 1), 3, np.float32)
    w1[0, 0] = first
    a = explained(lambda x: nn.relu(x @ w1) @ w2, [[1, 2, 3]], method)
    np.testing.assert_allclose(a.values, [expected], rtol=1e-6)
    np.testing.assert_array_equal(a.evaluations, [2])


def test_captum_s_identity_rule_is_the_relevance_of_what_the_first_layer_puts_out():
    """The same model: the rule hands relevance to the inputs of a layer as it is, so that of (8, 12, 12) is theirs."""
    w2 = np.full((3, 1), 3, np.float32)
    a = explained(lambda x: nn.relu(x) @ w2, [[8, 12, 12]])
    np.testing.assert_allclose(a.values, [[24, 36, 36]], rtol=1e-6)


def convolved(x, kernel):
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def test_captum_s_numbers_of_one_convolution():
    """tests/attr/test_lrp.py, of BasicModel_ConvNet_One_Conv: what its biases take and give is 0 in all."""
    kernel, bias = np.ones((3, 3, 1, 2), np.float32), np.array([-50, -75], np.float32)
    head = np.repeat([1, -1], (5, 3)).astype(np.float32)[:, None]

    def model(x):
        x = nn.relu(convolved(x, kernel) + bias[None, None, None])
        return nn.relu(x.transpose(0, 3, 1, 2).reshape(-1, 8) @ head)

    a = explained(model, np.arange(16).reshape(1, 4, 4, 1))
    expected = [[0, 1, 2, 3], [0, 5, 6, 7], [0, 9, 10, 11], [0, 0, 0, 0]]
    np.testing.assert_allclose(a.values[0, ..., 0], expected, rtol=1e-5)
    np.testing.assert_allclose(a.delta, [0], atol=1e-4)


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 1000))
def test_without_biases_it_is_the_gradient_times_input(seed):
    """So is the integrated gradient from zero, of ReLU networks with max-pooling; all sum to the score."""
    images = np.random.default_rng(seed).random((3, 8, 8, 1), np.float32)
    model = Cnn(features=(3, 4), dense=(12,), classes=3)
    variables = jax.jit(model.init)(jax.random.key(seed), images)  # biases begin as 0
    a, exact = (method(model, variables, images, 1) for method in (Lrp(), Lrp(epsilon=0.0)))
    scale = float(np.abs(a.values).max())
    assume(scale > 1e-3)  # not all units are off
    np.testing.assert_allclose(a.values.sum(axis=(1, 2, 3)), a.score, atol=1e-5 * scale * 64)
    for method in (saliency.GradientTimesInput(), saliency.IntegratedGradients(steps=2)):
        np.testing.assert_allclose(exact.values, method(model, variables, images, 1).values, atol=1e-5 * scale)
    # Each of four layers loses epsilon / sum of what passes through a sum: 1.0 of these was the most of 8,000 draws.
    _, state = model.apply(variables, images, capture_intermediates=True)
    smallest = min(np.abs(z)[np.nonzero(z)].min(initial=np.inf) for z in map(np.asarray, jax.tree.leaves(state)))
    np.testing.assert_allclose(a.values, exact.values, atol=(1e-5 + 4 * Lrp().epsilon / smallest) * scale)


def by_hand(rule, x, w, b, relevance):
    """Relevance of inputs x [n] of a layer w [n, m] with biases b, from that of its outputs."""
    w = np.vstack([w, b])
    z = np.append(x, 1)[:, None] * w

    def part(z):
        total = z.sum(axis=0)
        return (z / np.where(total == 0, 1, total) * relevance).sum(axis=1)[:-1]

    if rule.rule == "epsilon":
        total = z.sum(axis=0)
        return (z / (total + rule.epsilon * np.where(total < 0, -1, 1)) * relevance).sum(axis=1)[:-1]
    if rule.rule == "gamma":
        return part(np.append(x, 1)[:, None] * (w + rule.gamma * np.maximum(w, 0)))
    if rule.rule == "z_plus":
        return part(np.maximum(z, 0))
    return rule.alpha * part(np.maximum(z, 0)) - rule.beta * part(np.minimum(z, 0))


@pytest.mark.parametrize("method", [Lrp(epsilon=0.1), *RULES, Lrp("alpha_beta", alpha=1.5, beta=0.5)], ids=str)
def test_each_rule_by_hand(method):
    """Two layers with biases, inputs of both signs, and a ReLU, which passes relevance as it is."""
    x, b1, b2 = RANDOM.normal(size=4), RANDOM.normal(size=6), RANDOM.normal(size=3)
    w1, w2 = RANDOM.normal(size=(4, 6)), RANDOM.normal(size=(6, 3))
    hidden = np.maximum(x @ w1 + b1, 0)
    logits = hidden @ w2 + b2
    expected = by_hand(method, x, w1, b1, by_hand(method, hidden, w2, b2, np.where(np.arange(3) == 1, logits, 0)))
    w1, b1, w2, b2 = (jnp.asarray(v, jnp.float32) for v in (w1, b1[None], w2, b2[None]))
    a = explained(lambda x: nn.relu(x @ w1 + b1) @ w2 + b2, x[None], method, target=1)
    np.testing.assert_allclose(a.values[0], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(a.score[0], logits[1], rtol=1e-5)
    gap = expected.sum() - logits[1] + (np.maximum(b1, 0) @ w2 + b2)[0, 1]
    np.testing.assert_allclose(a.delta[0], gap, rtol=1e-4, atol=1e-4)


def test_alpha_beta_by_hand():
    """Weights (1, -1), bias -1, inputs (1, 1): positive products 1; negative ones -1, and the bias."""
    layer = np.array([[1], [-1]], np.float32)
    for alpha, expected in ((1.0, [-1, 0]), (2.0, [-2, 0.5])):
        a = explained(lambda x: x @ layer - 1, [[1, 1]], Lrp("alpha_beta", alpha=alpha, beta=alpha - 1))
        np.testing.assert_allclose(a.values, [expected], rtol=1e-6)


def test_rules_of_pixels_by_hand():
    """z-box in [0, 1], for pixels that the network normalizes first; w-squared and flat; biases get nothing."""
    x, w = RANDOM.random((1, 3), np.float32), RANDOM.normal(size=(3, 2)).astype(np.float32)
    mean, deviation = np.float32([0.4, 0.5, 0.6]), np.float32([0.2, -0.3, 0.1])
    z = (x - mean) / deviation
    bounds = np.stack([(0 - mean) / deviation, (1 - mean) / deviation])
    low, high = bounds.min(axis=0)[:, None], bounds.max(axis=0)[:, None]
    score = float((z @ w)[0, 0]) + 0.3
    shares = {
        "z_box": z.T * w - low * np.maximum(w, 0) - high * np.minimum(w, 0),
        "w_squared": w**2,
        "flat": np.ones_like(w),
    }

    def model(x):
        return ((x - mean[None]) / deviation[None]).reshape(1, 3, 1)[..., 0] @ w + 0.3

    for rule, share in shares.items():
        a = explained(model, x, Lrp(rule))
        expected = (share / share.sum(axis=0))[:, 0] * score
        if rule != "z_box":  # the mean keeps its share of what the layer gets
            expected = expected * x[0] / (x - mean)[0]
        np.testing.assert_allclose(a.values[0], expected, rtol=1e-4)
    np.testing.assert_allclose(explained(model, x, Lrp("z_box")).values.sum(), score, rtol=1e-5)


def test_rules_follow_the_names_of_layers():
    """The first that fits a layer or a module around it; `rule` for others; the same model with one rule is equal."""
    images = RANDOM.random((2, 8, 8, 1), np.float32)
    model = Cnn(features=(3, 4), dense=(5,), classes=3)
    variables = jax.tree.map(lambda x: x + 0.05, jax.jit(model.init)(jax.random.key(0), images))

    def explain(*arguments, **options):
        return np.asarray(Lrp(*arguments, **options)(model, variables, images, 1).values)

    gamma, plus = explain("gamma"), explain("z_plus")
    np.testing.assert_array_equal(explain(rules={"*": "gamma", "conv1": "flat"}), gamma)
    np.testing.assert_array_equal(explain("gamma", rules=(("conv*", "z_plus"), ("*", "z_plus"))), plus)
    mixed = explain("gamma", rules={"conv*": "z_plus"})
    assert np.abs(mixed - gamma).max() > 1e-3 * np.abs(gamma).max()
    assert np.abs(mixed - plus).max() > 1e-3 * np.abs(plus).max()
    assert Lrp(rules={"conv1": "flat"}) == Lrp(rules=(("conv1", "flat"),))
    with pytest.raises(UserError, match="rules: 'cnov1' fits no layer with weights; the nearest are conv1, conv2"):
        explain(rules={"cnov1": "flat"})
    with pytest.raises(UserError, match='"z_box" is for a layer of pixels'):
        explain(rules={"conv2": "z_box"})
    with pytest.raises(UserError, match="'conv1' fits no layer, because this model gives its layers no names"):
        explained(lambda x: x @ np.ones((3, 2), np.float32), np.ones((1, 3)), Lrp(rules={"conv1": "flat"}))


@pytest.mark.parametrize("method", RULES, ids=str)
def test_a_convolution_is_the_layer_of_its_matrix(method):
    """And weights on either side of the product are the same layer."""
    x, bias = RANDOM.normal(size=(2, 5, 5, 2)).astype(np.float32), RANDOM.normal(size=3).astype(np.float32)
    kernel = RANDOM.normal(size=(3, 3, 2, 3)).astype(np.float32)
    matrix = convolved(np.eye(50, dtype=np.float32).reshape(50, 5, 5, 2), kernel).reshape(50, 27)

    def with_layer(layer):
        return explained(lambda x: (nn.relu(layer(x) + bias[None, None, None]) ** 2).sum(axis=(1, 2)), x, method, 2)

    expected = with_layer(lambda x: (x.reshape(len(x), 50) @ matrix).reshape(-1, 3, 3, 3)).values
    np.testing.assert_allclose(with_layer(lambda x: convolved(x, kernel)).values, expected, rtol=1e-4, atol=1e-4)
    turned = with_layer(lambda x: (matrix.T @ x.reshape(len(x), 50).T).T.reshape(-1, 3, 3, 3)).values
    np.testing.assert_allclose(turned, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", RULES, ids=str)
def test_positive_networks_conserve_relevance(method):
    """All but alpha-beta: that hands back beta times what was negative, of which here is nothing."""
    images = RANDOM.random((2, 8, 8, 1), np.float32)
    model = Cnn(features=(3,), dense=(5,), classes=3)
    variables = jax.tree.map(np.abs, jax.jit(model.init)(jax.random.key(0), images))
    a = method(model, variables, images, 1)
    layers = 3
    kept = method.alpha**layers if method.rule == "alpha_beta" else 1
    np.testing.assert_allclose(a.values.sum(axis=(1, 2, 3)), kept * a.score, rtol=1e-4)


CURVES = {
    "relu": nn.relu,
    "maximum": lambda x: jnp.maximum(0.0, x),
    "tanh": jnp.tanh,
    "gelu": nn.gelu,
    "silu": nn.silu,
    "elu": nn.elu,
    "leaky_relu": nn.leaky_relu,
    "softplus": nn.softplus,
    "hard_tanh": nn.hard_tanh,
    "hard_swish": nn.hard_swish,
    "log_sigmoid": nn.log_sigmoid,
    "mish": lambda x: x * jnp.tanh(nn.softplus(x)),
    "masked": lambda x: x * (x > 0),
}


@pytest.mark.parametrize("name", CURVES)
def test_functions_of_one_number_pass_relevance_as_it_is(name):
    """Written as one function, or of several operations; biases keep their shares before them and after."""
    curve = CURVES[name]
    x, w, head = (RANDOM.normal(size=size).astype(np.float32) for size in ((1, 4), (4, 5), (5, 2)))
    z, y = x @ w + 0.3, curve(x @ w + 0.3)
    expected = (x.T * w / z * y * head[None, :, 0]).sum(axis=1)  # the logit's own sum cancels with the score
    a = explained(lambda x: curve(x @ w + 0.3) @ head + 0.2, x)
    np.testing.assert_allclose(a.values[0], expected, rtol=1e-3, atol=1e-5)


def test_pooling_takes_the_largest_or_shares():
    x = np.array([[1.0, 4.0, 2.0, 3.0]], np.float32).reshape(1, 2, 2, 1)

    def values(pool):
        return explained(lambda x: pool(x).reshape(-1, 1), x).values.reshape(4)

    for largest in (MaxPool(2).bind({}), lambda x: nn.max_pool(x, (2, 2)), lambda x: x.max(axis=(1, 2))):
        np.testing.assert_allclose(values(largest), [0, 4, 0, 0], rtol=1e-6)
    for mean in (lambda x: nn.avg_pool(x, (2, 2)), lambda x: x.mean(axis=(1, 2))):
        np.testing.assert_allclose(values(mean), [0.25, 1, 0.5, 0.75], rtol=1e-6)
    np.testing.assert_allclose(values(lambda x: jnp.maximum(x[:, :1, :1], x[:, 1:, 1:])), [0, 0, 0, 3], rtol=1e-6)


@pytest.mark.parametrize("method", RULES, ids=str)
def test_branches_have_their_shares(method):
    """A residual block: what the sum gets, each branch gets in proportion."""
    x, w = RANDOM.random((1, 3), np.float32), RANDOM.random((3, 3), np.float32)
    a = explained(lambda x: (x + nn.relu(x @ w))[:, :1], x, method)
    branch = by_hand(method, x[0], w, np.zeros(3), np.where(np.arange(3) == 0, x @ w, 0))
    np.testing.assert_allclose(a.values[0], branch + x[0] * [1, 0, 0], rtol=1e-5)


def test_batch_norm_is_part_of_the_convolution_before_it():
    """With the epsilon rule, whether it is carried out apart or is in the weights."""
    images = RANDOM.random((2, 6, 6, 1), np.float32)
    kernel, head = RANDOM.normal(size=(3, 3, 1, 4)).astype(np.float32), RANDOM.normal(size=(4, 2)).astype(np.float32)
    mean, var, scale, bias = RANDOM.normal(size=(4, 4)).astype(np.float32) ** 2 + 0.1
    norm = {"params": {"scale": scale - 0.5, "bias": bias}, "batch_stats": {"mean": mean, "var": var}}

    def apart(x):
        x = nn.BatchNorm(use_running_average=True).apply(norm, convolved(x, kernel))
        return nn.relu(x).mean(axis=(1, 2)) @ head

    def merged(x):
        factor = (scale - 0.5) / np.sqrt(var + 1e-5)
        return (
            nn.relu(convolved(x, kernel * factor) + (bias - mean * factor)[None, None, None]).mean(axis=(1, 2)) @ head
        )

    a, b = explained(apart, images), explained(merged, images)
    assert np.abs(a.values).max() > 0.01
    np.testing.assert_allclose(a.values, b.values, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("score", ["logit", "probability", "log_probability", "margin"])
def test_relevance_begins_as_the_score(score):
    """All of it at the logit of the class; a margin at both logits, with their signs."""
    x, w = RANDOM.random((3, 4), np.float32), RANDOM.random((4, 3), np.float32)
    a = saliency.all_classes(Lrp(score=score))(lambda _, x: x @ w, {}, x)
    logits = x @ w
    shares = np.moveaxis(x[:, :, None] * w / logits[:, None], 1, 2)  # [b, classes, n]
    if score == "margin":
        order = np.argsort(logits, axis=1)
        other = np.where(np.arange(3) == order[:, -1:], order[:, -2:-1], order[:, -1:])
        rows = np.arange(3)[:, None]
        expected = shares * logits[..., None] - shares[rows, other] * logits[rows, other][..., None]
    else:
        expected = shares * a.score[..., None]
    np.testing.assert_allclose(a.values, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(a.values.sum(axis=2), a.score, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda x: jnp.sort(x, axis=1), "sort"),
        (lambda x: jnp.cumprod(x, axis=1), "cumprod"),
        (lambda x: x ** x[:, ::-1], "pow"),
        (lambda x: jax.lax.while_loop(lambda x: x[0, 0] < 1, lambda x: 2 * x, x), "while"),
    ],
    ids=["sort", "product", "power", "loop"],
)
def test_what_has_no_rule_is_named(function, name):
    with pytest.raises(UserError, match=f"no rule for '{name}'.*DeepLift"):
        explained(function, np.full((2, 3), 0.5))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"epsilon": -1.0}, "epsilon=-1.0: expected at least 0"),
        ({"gamma": -0.1}, "gamma=-0.1: expected at least 0"),
        ({"alpha": 0.5, "beta": -0.5}, "beta=-0.5: expected at least 0"),
        ({"alpha": 2.0, "beta": 0.5}, "alpha - beta = 1.5: expected 1"),
        ({"residual_gamma": -1.0}, "residual_gamma=-1.0: expected at least 0"),
    ],
)
def test_fields_that_do_not_fit_are_named(fields, message):
    with pytest.raises(UserError, match=message):
        Lrp(**fields)


def test_sums_of_nothing_hand_nothing_back():
    for method in (*RULES, Lrp(epsilon=0.0)):
        a = explained(
            lambda x: nn.relu(x @ np.ones((3, 2), np.float32)) @ np.eye(2, dtype=np.float32), np.zeros((2, 3)), method
        )
        np.testing.assert_array_equal(a.values, np.zeros((2, 3)))


def test_names_of_layers_inside_vmap_are_those_outside():
    """As by `adapt_equinox`."""
    assert split_scope("vmap(net/conv1)/conv1.__call__") == ["net", "conv1"]
    assert split_scope("Net/jit(relu)") == ["Net", "jit(relu)"]
