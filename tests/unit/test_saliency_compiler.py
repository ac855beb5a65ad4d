"""What is compiled: what must be hashable, and options, where they are given and that they change rounding only."""

import re
from functools import partial

import flax.linen as nn
import jax
import numpy as np
import pytest
from support.networks import draw_variables

from jaxclf import saliency
from jaxclf.errors import UserError
from jaxclf.saliency import compiler
from jaxclf.xla.options import WITH_ONEDNN

IMAGES = np.float32(np.random.default_rng(0).normal(size=(4, 12, 12, 3)))


class Net(nn.Module):
    """Two convolutions, each with an activation."""

    activation: str

    @nn.compact
    def __call__(self, images, train=False):
        activation = getattr(nn, self.activation)
        x = activation(nn.Conv(16, (3, 3))(images))
        x = activation(nn.Conv(8, (3, 3))(x))
        return nn.Dense(3)(x.reshape(x.shape[0], -1))


@pytest.fixture
def newest(monkeypatch):
    """Compile as on a version of JAX with which oneDNN is used, on an x86 machine."""
    monkeypatch.setattr(jax, "__version_info__", (0, 12, 0))
    monkeypatch.setattr("platform.machine", lambda: "x86_64")


def options(activation):
    model = Net(activation)
    return compiler.select_compiler_options(model, draw_variables(model, IMAGES.shape), IMAGES, None)


@pytest.mark.parametrize("activation", ["relu", "silu", "gelu", "tanh", "sigmoid", "softplus", "elu", "leaky_relu"])
def test_a_method_gives_the_same_values_with_compiler_options_and_inside_a_program_without_them(newest, activation):
    """An option once miscompiled x * sigmoid(x) behind a convolution."""
    model = Net(activation)
    assert bool(options(activation)) == (activation in ("relu", "leaky_relu"))
    variables = draw_variables(model, IMAGES.shape)
    for method in (saliency.Gradient(), saliency.IntegratedGradients(steps=3)):
        alone = method(model, variables, IMAGES).values
        inside = jax.jit(method, static_argnums=0)(model, variables, IMAGES).values
        np.testing.assert_allclose(alone, inside, atol=1e-4 * np.abs(inside).max())


def precisions(function, *arguments):
    return set(re.findall(r"[^_]precision=(\S+)", str(jax.make_jaxpr(function)(*arguments))))


@pytest.mark.parametrize("method", [saliency.Gradient(), saliency.DeepLift(), saliency.Lrp(), saliency.Occlusion(4, 4)])
def test_products_have_all_their_digits_unless_the_user_has_chosen_others(method):
    model = Net("relu")
    variables = draw_variables(model, IMAGES.shape)
    attribution = method(model, variables, IMAGES)
    insertion = partial(saliency.insertion, model, steps=2)
    assert precisions(partial(method, model), variables, IMAGES) == {"(Precision.HIGHEST,"}
    assert precisions(insertion, variables, IMAGES, attribution) == {"(Precision.HIGHEST,"}
    with jax.default_matmul_precision("tensorfloat32"):
        assert "(Precision.HIGH," in precisions(partial(method, model), variables, IMAGES)


def test_options_are_for_networks_of_relus_alone(newest):
    assert options("relu") == WITH_ONEDNN
    assert options("silu") == options("gelu") == ()


def test_no_options_where_onednn_was_not_faster(monkeypatch):
    monkeypatch.setattr(jax, "__version_info__", (0, 10, 2))
    assert options("relu") == ()


def test_flags_of_the_users_own_go_before(newest, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_experimental_onednn_custom_call=false")
    assert options("relu") == ()


def test_the_switch_of_fast_convolutions_takes_options_away(newest, monkeypatch):
    monkeypatch.setenv("JAXCLF_FAST_CONVOLUTIONS", "0")
    assert options("relu") == ()


def test_a_part_of_a_program_has_none(newest):
    model, given = Net("relu"), []
    variables = draw_variables(model, IMAGES.shape)
    jax.jit(lambda: given.append(compiler.select_compiler_options(model, variables, IMAGES)))()
    jax.grad(lambda x: given.append(compiler.select_compiler_options(model, variables, x)) or x.sum())(IMAGES)
    assert given == [(), ()]


class Linear:
    """A callable that is not hashable, as classes that define equality are not."""

    __hash__ = None

    def __call__(self, variables, images):
        return images.reshape(images.shape[0], -1) @ variables


class Scaled(Net):
    """A Linen module with an array in a field."""

    factors: np.ndarray = None


KEYED = {"key": jax.random.key(0)}
OF_ATTRIBUTIONS = [
    (saliency.infidelity, KEYED | {"samples": 2}),
    (saliency.sensitivity_n, KEYED),
    (saliency.insertion, {}),
    (saliency.deletion, {}),
    (saliency.road, KEYED),
]
OF_METHODS = [
    (saliency.sensitivity_max, KEYED),
    (saliency.local_lipschitz, KEYED),
    (saliency.input_invariance, {}),
]


@pytest.mark.parametrize("model", [Linear(), Scaled("relu", np.ones(3))], ids=["callable", "module"])
def test_a_model_that_is_not_hashable_is_named_by_methods_and_measures(model):
    variables = np.ones((432, 3), np.float32) if isinstance(model, Linear) else model.init(jax.random.key(0), IMAGES)
    zeros = np.zeros(4, np.float32)
    a = saliency.Attribution(IMAGES, zeros, None, None, zeros)
    asked = (model, variables, IMAGES)
    calls = [lambda: saliency.Gradient()(*asked)]
    calls += [partial(measure, *asked, a, **options) for measure, options in OF_ATTRIBUTIONS]
    calls += [partial(measure, saliency.Gradient(), *asked, **options) for measure, options in OF_METHODS]
    if isinstance(model, nn.Module):
        calls.append(partial(saliency.parameter_randomization, saliency.Gradient(), *asked, **KEYED))
    for call in calls:
        with pytest.raises(UserError, match=f"model is of type {type(model).__name__}, which is not hashable"):
            call()


def test_what_else_is_static_is_named_too():
    with pytest.raises(UserError, match="percentages is of type list, which is not hashable"):
        saliency.road(Net("relu"), {}, IMAGES, None, **KEYED, percentages=[10, 20])
