"""Operations found in traced programs: ReLUs however they are written, biases and differences in loops."""

from itertools import count

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxclf.errors import UserError
from jaxclf.models import Mlp
from jaxclf.saliency import Deconvnet, DeepLift, FullGrad, GradientTimesInput, GuidedBackprop, Lrp
from jaxclf.saliency.methods.guided_backprop import apply_deconvnet_relu, apply_guided_relu
from jaxclf.saliency.methods.relu import replace_relus

X = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
W = np.random.default_rng(1).normal(size=(4, 4)).astype(np.float32)
ZEROS = jnp.zeros(4)


def twice(relu):
    """A function with the same ReLU used two times."""
    return lambda x: relu(relu(x @ W) @ W)


def scanned(relu):
    return lambda x: lax.scan(lambda x, w: (relu(x @ w), None), x, jnp.stack([W, W]))[0]


RELUS = {
    "nn.relu": twice(nn.relu),
    "maximum": twice(lambda x: jnp.maximum(x, 0)),
    "maximum, 0 first": twice(lambda x: jnp.maximum(0.0, x)),
    "maximum with zeros_like": twice(lambda x: jnp.maximum(x, jnp.zeros_like(x))),
    "maximum with a captured array": twice(lambda x: jnp.maximum(x, ZEROS[None])),
    "maximum with a NumPy array": twice(lambda x: jnp.maximum(np.zeros((3, 4), np.float32), x)),
    "clip from below": twice(lambda x: jnp.clip(x, 0)),
    "jit": twice(jax.jit(nn.relu)),
    "jit of the function": jax.jit(twice(nn.relu)),
    "0 handed to jit": twice(lambda x: jax.jit(jnp.maximum)(x, jnp.zeros_like(x))),
    "checkpoint": jax.checkpoint(twice(nn.relu)),
    "checkpoint with a captured array": twice(jax.checkpoint(lambda x: jnp.maximum(x, ZEROS[None]))),
    "vmap": twice(jax.vmap(nn.relu)),
    "vmap of maximum": twice(jax.vmap(lambda x: jnp.maximum(x, ZEROS))),
    "scan": scanned(nn.relu),
    "scan with a captured array": scanned(lambda x: jnp.maximum(x, ZEROS[None])),
    "cond": lambda x: lax.cond(x[0, 0] > 100, twice(jnp.tanh), twice(nn.relu), x),
    "all at once": twice(jax.jit(jax.checkpoint(jax.vmap(nn.relu)))),
}


@pytest.mark.parametrize("relu", [apply_guided_relu, apply_deconvnet_relu])
@pytest.mark.parametrize("name", RELUS)
def test_relus_are_found_however_they_are_written(name, relu):
    def gradient(function):
        return jax.grad(lambda x: -(function(x) ** 2).sum() + function(x).sum())(X)

    expected = gradient(twice(relu))
    assert np.abs(expected - gradient(twice(nn.relu))).max() > 0.1
    np.testing.assert_allclose(gradient(replace_relus(RELUS[name], relu)), expected, rtol=1e-5, atol=1e-5)


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, _=None):
        return nn.relu(nn.Dense(4)(x)), None


class Stack(nn.Module):
    """Blocks with their own weights, as modules one after another, rematerialised, or as one scan."""

    kind: str

    @nn.compact
    def __call__(self, x, train=False):
        if self.kind == "scan":
            x, _ = nn.scan(Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)(name="blocks")(
                x, None
            )
        else:
            block = nn.remat(Block) if self.kind == "remat" else Block
            for i in range(3):
                x, _ = block(name=f"block{i}")(x)
        return nn.Dense(2, name="logits")(x)


def draw_block(random):
    """Weights with a unit that is never off: positive, as are its inputs, and it passes on a positive gradient."""
    kernel, bias = random.normal(size=(4, 4)), random.normal(size=4)
    kernel[0], kernel[:, 0], bias[0] = np.abs(kernel[0]), np.abs(kernel[:, 0]), np.abs(bias[0])
    kernel[0, 0] += 1
    return {"Dense_0": {"kernel": kernel, "bias": bias}}


def weights_of(kind):
    """Weights of a stack, the same for each kind."""
    random = np.random.default_rng(2)
    blocks = [draw_block(random) for _ in range(3)]
    params = {"logits": {"kernel": np.abs(random.normal(size=(4, 2))), "bias": random.normal(size=2)}}
    if kind == "scan":
        params["blocks"] = jax.tree.map(lambda *x: np.stack(x), *blocks)
    else:
        params |= {f"block{i}": block for i, block in enumerate(blocks)}
    return {"params": jax.tree.map(lambda x: x.astype(np.float32), params)}


@pytest.mark.parametrize("kind", ["remat", "scan"])
@pytest.mark.parametrize(
    "method", [GuidedBackprop(), Deconvnet(), FullGrad(), DeepLift(), Lrp(), Lrp("alpha_beta")], ids=str
)
def test_modules_rematerialised_or_scanned_are_explained_like_modules_one_after_another(method, kind):
    x = np.abs(X)
    plain = method(Stack("plain"), weights_of("plain"), x, 0, baseline=0.3)
    other = method(Stack(kind), weights_of(kind), x, 0, baseline=0.3)
    assert np.abs(plain.values).max() > 0.1
    for name, x, y in zip(plain._fields, plain, other, strict=True):
        if x is not None:
            scale = float(np.abs(plain.score if name == "delta" else x).max())  # a gap is what is left of the score
            np.testing.assert_allclose(y, x, rtol=1e-4, atol=1e-5 * scale, err_msg=name)


@pytest.mark.parametrize("method", [FullGrad(), DeepLift(), Lrp()], ids=str)
def test_a_loop_may_take_two_turns_to_depend_on_the_image(method):
    """One value of the carry is a constant for a turn, then what another one was, then depends on the image."""

    def model(variables, images):
        def turn(carry, w):
            x, y, z = carry
            return (nn.relu(x @ w) + 0.1, x, z + y), None

        carry, _ = lax.scan(turn, (images, jnp.ones_like(images), jnp.zeros_like(images)), jnp.stack([W, W, W]))
        return sum(carry)

    def unrolled(variables, images):
        x, y, z = images, jnp.ones_like(images), 0.0
        for _ in range(3):
            x, y, z = nn.relu(x @ W) + 0.1, x, z + y
        return x + y + z

    a, b = (method(f, {}, X, 2, baseline=-0.2) for f in (model, unrolled))
    np.testing.assert_allclose(a.values, b.values, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(a.delta, b.delta, rtol=1e-4, atol=1e-4)


@jax.custom_jvp
def odd_relu(x):
    return jnp.maximum(x, 0)


odd_relu.defjvps(lambda tangent, _, x: tangent)


@jax.custom_vjp
def own_relu(x):
    return nn.relu(x)


own_relu.defvjp(lambda x: (nn.relu(x), None), lambda _, g: (g,))


def looped_relu(x):
    return lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, nn.relu(c[1])), (0, x))[1]


@pytest.mark.parametrize(
    ("relu", "where"), [(odd_relu, "custom_jvp_call"), (own_relu, "custom_vjp_call"), (looped_relu, "while")]
)
def test_a_relu_in_a_body_that_cannot_be_rewritten_is_an_error(relu, where):
    for method in (GuidedBackprop(), Deconvnet()):
        with pytest.raises(UserError, match=f"a ReLU is inside '{where}'"):
            method(lambda _, x: nn.relu(relu(x)), {}, X)


@pytest.mark.parametrize(
    "model",
    [
        jnp.tanh,
        jax.nn.softplus,
        jax.nn.gelu,
        jax.nn.silu,
        lambda x: x - jax.nn.logsumexp(x, axis=1, keepdims=True),
        lambda x: x * jnp.maximum(jnp.arange(-2, 2), 0)[None],
        lambda x: nn.LayerNorm(use_bias=False, use_scale=False).apply({}, x),
    ],
    ids=["tanh", "softplus", "gelu", "silu", "logsumexp", "of integers", "a variance kept from below 0"],
)
def test_what_is_no_relu_is_not_taken_for_one(model):
    for method in (GuidedBackprop(), Deconvnet()):
        with pytest.raises(UserError, match="has no ReLU"):
            method(lambda _, x: model(x), {}, X)


@jax.custom_vjp
def sevenfold(x):
    return jnp.sin(x)


sevenfold.defvjp(lambda x: (jnp.sin(x), None), lambda _, g: (7 * g,))


def test_other_functions_keep_their_own_derivatives():
    def others(x):
        return jax.nn.silu(x) + jax.nn.gelu(x) + jax.nn.softplus(x) + sevenfold(x) + jax.nn.logsumexp(x)

    gradient = jax.grad(lambda x: replace_relus(lambda x: others(x) + 0 * nn.relu(x), apply_guided_relu)(x).sum())(X)
    np.testing.assert_allclose(gradient, jax.grad(lambda x: others(x).sum())(X), rtol=1e-6)


def test_relu6_is_a_relu_with_a_cap():
    x = jnp.array([-1.0, 1.0, 7.0, 1.0])
    gradient = jax.grad(
        lambda x: (replace_relus(nn.relu6, apply_guided_relu)(x) * jnp.array([1.0, 2.0, 3.0, -4.0])).sum()
    )(x)
    np.testing.assert_array_equal(gradient, [0, 2, 0, 0])


def test_a_scan_of_biases_is_split_like_any_others():
    """Each turn adds its own, and one that all turns share."""

    def model(variables, images):
        shared, own = variables
        return lax.scan(lambda x, b: (nn.relu(x @ W + b[None]) + shared, None), images, own)[0]

    variables = jnp.float32(0.3), jnp.asarray(W[:3])
    a = FullGrad()(model, variables, X, 0)
    np.testing.assert_allclose(a.delta, np.zeros(3), atol=1e-5)
    linear = GradientTimesInput()(model, variables, X, 0).values
    biases = jax.jacobian(lambda variables: model(variables, X)[:, 0])(variables)
    owed = biases[0] * variables[0] + (biases[1] * variables[1][None]).sum(axis=(1, 2))
    np.testing.assert_allclose(a.values, linear + owed[:, None] / 4, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", [FullGrad(), DeepLift(), Lrp()], ids=str)
def test_a_model_that_does_not_look_owes_nothing_to_pixels(method):
    """FullGrad spreads the constant over all of them: what it explains is the score, not its change."""
    a = method(lambda _, x: jnp.full((len(x), 2), 3.0), {}, X, 0)
    np.testing.assert_allclose(a.score, [3, 3, 3])
    np.testing.assert_allclose(a.values, np.full((3, 4), 0.75 if method == FullGrad() else 0), rtol=1e-6)


def keeps_signs(x, kernel):
    """Whether rounding of x and weights moves no sum x @ kernel by more than a sixteenth, so that no ReLU switches.

    Either is rounded by up to 2^-9 of it, so a sum by up to 2^-8 of the sizes of its terms.
    """
    return (np.abs(x @ kernel) > 2**-4 * (x @ np.abs(kernel))).all()


@pytest.mark.parametrize("method", [GuidedBackprop(), FullGrad(), DeepLift(), Lrp(), Lrp("alpha_beta")], ids=str)
def test_models_that_compute_in_half_precision(method):
    """The same but for rounding to 8 bits, which shows most in secants; values are single precision like the images."""
    x = np.random.default_rng(5).random((2, 6), np.float32)
    for seed in count():
        variables = Mlp((8,), 3).init(jax.random.key(seed), x)  # biases begin as 0
        first, last = (variables["params"][name]["kernel"] for name in ("dense1", "logits"))
        if keeps_signs(x, first) and keeps_signs(nn.relu(x @ first), last[:, 1:2]):
            break
    single = method(Mlp((8,), 3), variables, x, 1)
    half = method(Mlp((8,), 3, dtype="bfloat16"), variables, x, 1)
    assert half.values.dtype == jnp.float32
    # 0.04 was the most of 490 draws.
    np.testing.assert_allclose(half.values, single.values, atol=0.1 * float(np.abs(single.values).max()))
