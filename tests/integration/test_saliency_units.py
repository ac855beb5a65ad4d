"""Attribution of layers and of their units: sums, closed forms and the numbers of a peer."""

from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.networks import CLASSES, IMAGES, Net, draw_variables

from jaxclf import saliency
from jaxclf.errors import UserError

MODEL = Net("tanh")
BASELINE = 0.3
OF_LAYERS = [
    lambda layer: saliency.IntegratedGradients(steps=100, layer=layer),
    lambda layer: saliency.DeepLift(layer=layer),
    lambda layer: saliency.Conductance(layer, steps=100),
]
NAMES = ["integrated", "deep_lift", "conductance"]


class Linear(nn.Module):
    """Two linear layers."""

    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(3, name="last")(nn.Dense(5, name="first")(x))


class Skip(nn.Module):
    """A layer beside which the image passes, too."""

    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(3, name="last")(nn.tanh(nn.Dense(6, name="branch")(x)) + x)


def total(a):
    return np.asarray(a.values).reshape(*a.score.shape, -1).sum(axis=-1)


@pytest.mark.parametrize("make", OF_LAYERS, ids=NAMES)
@pytest.mark.parametrize("layer", ["first", "first/conv", "second/relu"])
def test_the_values_of_a_layer_sum_to_the_change_of_the_score(make, layer):
    variables = draw_variables(MODEL)
    a = make(layer)(MODEL, variables, IMAGES, 1, baseline=BASELINE)
    change = MODEL.apply(variables, IMAGES)[:, 1] - MODEL.apply(variables, np.full_like(IMAGES, BASELINE))[:, 1]
    np.testing.assert_allclose(total(a), change, atol=0.01)
    np.testing.assert_allclose(a.delta, total(a) - change, atol=1e-5)
    assert a.values.shape == {"first": (3, 6, 6, 2), "first/conv": (3, 6, 6, 2), "second/relu": (3, 3, 3, 5)}[layer]


@pytest.mark.parametrize("make", OF_LAYERS, ids=NAMES)
def test_of_a_linear_network_each_unit_has_its_weight_times_its_change(make, random):
    images = random.random((4, 6), np.float32)
    variables = draw_variables(Linear(), images.shape)
    a = saliency.all_classes(make("first"))(Linear(), variables, images, baseline=BASELINE)
    params = variables["params"]
    change = (images - BASELINE) @ params["first"]["kernel"]
    np.testing.assert_allclose(a.values, change[:, None] * params["last"]["kernel"].T[None], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", OF_LAYERS, ids=NAMES)
def test_what_flows_beside_a_layer_is_missing_from_its_values(make, random):
    images = random.random((4, 6), np.float32)
    variables = draw_variables(Skip(), images.shape)
    a = make("branch")(Skip(), variables, images, 0)
    beside = images @ variables["params"]["last"]["kernel"][:, 0]
    np.testing.assert_allclose(a.delta, -beside, atol=1e-3)


def test_conductance_is_the_change_of_each_unit_along_the_path(random):
    """Of a sum of squares of units, each has half the difference of its squares, whatever the curve between."""

    class Squares(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            x = nn.tanh(nn.Dense(5, name="units")(x))
            return (Tap(name="tap")(x) ** 2).sum(axis=1, keepdims=True)

    class Tap(nn.Module):
        def __call__(self, x):
            return x

    images = random.random((3, 6), np.float32)
    variables = draw_variables(Squares(), images.shape)
    a = saliency.Conductance("tap", steps=60)(Squares(), variables, images, 0)
    dense = variables["params"]["units"]
    ends = [np.tanh(x @ dense["kernel"] + dense["bias"]) for x in (images, 0 * images)]
    np.testing.assert_allclose(a.values, ends[0] ** 2 - ends[1] ** 2, atol=1e-5)


def test_a_layer_that_cannot_be_explained_is_named():
    variables = draw_variables(MODEL)
    for make in OF_LAYERS:
        with pytest.raises(UserError, match="no layer 'secon'; did you mean second"):
            make("secon")(MODEL, variables, IMAGES)
        with pytest.raises(UserError, match="function is not a Linen module"):
            make("second")(lambda v, x: x.reshape(3, -1), {}, IMAGES)
    with pytest.raises(UserError, match="the adaptive rule is for pixels"):
        saliency.IntegratedGradients(rule="adaptive", layer="first")


def test_a_unit_is_explained_like_a_class():
    """The gradient of unit (y, x, c) is that of Flax's own output, and integrated gradients are complete."""
    variables = draw_variables(MODEL)
    units = saliency.select_units(MODEL, "second/conv")
    y, x, c = 1, 2, 3
    target = int(np.ravel_multi_index((y, x, c), (3, 3, 5)))

    def compute(images):
        _, state = MODEL.apply(variables, images, capture_intermediates=True)
        return state["intermediates"]["second"]["conv"]["__call__"][0][:, y, x, c]

    a = saliency.Gradient()(units, variables, IMAGES, target)
    np.testing.assert_allclose(a.values, jax.grad(lambda images: compute(images).sum())(IMAGES), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(a.score, compute(IMAGES), rtol=1e-5)
    a = saliency.IntegratedGradients(steps=100)(units, variables, IMAGES, target)
    np.testing.assert_allclose(total(a), compute(IMAGES) - compute(jnp.zeros_like(IMAGES)), atol=0.01)
    assert units == saliency.select_units(MODEL, "second/conv")
    assert a.values.shape == IMAGES.shape
    assert target > CLASSES


def test_units_of_a_layer_that_does_not_exist_are_refused():
    with pytest.raises(UserError, match="not a Linen module"):
        saliency.select_units(lambda v, x: x, "second")
    with pytest.raises(UserError, match="no layer 'secnd'; did you mean second"):
        saliency.Gradient()(saliency.select_units(MODEL, "secnd"), draw_variables(MODEL), IMAGES)


class Captum(nn.Module):
    """The network of fixtures/write_captum_layers.py: its flattening puts channels first."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Conv(2, (3, 3), padding="VALID", name="conv")(x))
        x = nn.max_pool(x, (2, 2), (2, 2)).transpose(0, 3, 1, 2).reshape(x.shape[0], -1)
        return nn.Dense(3, name="last")(nn.relu(nn.Dense(5, name="dense")(x)))


CAPTUM = np.load(Path(__file__).parents[1] / "fixtures/captum_layers.npz")
METHODS = {
    "integrated": saliency.IntegratedGradients,
    "deep_lift": saliency.DeepLift,
    "conductance": saliency.Conductance,
}


@pytest.fixture
def captum():
    """The weights and images of the fixture, as Flax has them."""
    arrays = dict(CAPTUM)
    params = {
        "conv": {"kernel": arrays["weights/0.weight"].transpose(2, 3, 1, 0), "bias": arrays["weights/0.bias"]},
        "dense": {"kernel": arrays["weights/4.weight"].T, "bias": arrays["weights/4.bias"]},
        "last": {"kernel": arrays["weights/6.weight"].T, "bias": arrays["weights/6.bias"]},
    }
    return {"params": params}, arrays["images"].transpose(0, 2, 3, 1)


@pytest.mark.parametrize("layer", ["conv", "dense"])
@pytest.mark.parametrize("name", METHODS)
def test_captum_s_numbers_of_layers(captum, name, layer):
    """Its conductance takes differences between steps, and is exact as their number grows: here 30,000."""
    a = METHODS[name](layer=layer)(Captum(), *captum, 1, baseline=0.2)
    expected = CAPTUM[f"{name}/{layer}"]
    expected = expected.transpose(0, 2, 3, 1) if layer == "conv" else expected
    tolerance = 0.01 if name == "conductance" else 1e-4
    np.testing.assert_allclose(a.values, expected, atol=tolerance * np.abs(expected).max())


def test_captum_s_numbers_of_a_neuron(captum):
    a = saliency.IntegratedGradients()(saliency.select_units(Captum(), "dense"), *captum, 2, baseline=0.2)
    np.testing.assert_allclose(a.values, CAPTUM["neuron"].transpose(0, 2, 3, 1), atol=1e-5)
