"""Class-activation maps: what linear heads make of them, the papers' formulas written out, captum's numbers."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
from support.networks import IMAGES, Net, Relu, activation, draw_variables

from jaxclf import saliency

GRADIENT_MAPS = [saliency.GradCam, saliency.GradCamPlusPlus, saliency.HiResCam, saliency.LayerCam]


def tail(variables, x):
    """The logits of `Net` by the output of its last block, in float64."""
    return np.tanh(x.astype(float)).reshape(x.shape[0], -1) @ kernel(variables) + np.asarray(bias(variables))


def kernel(variables):
    return np.asarray(variables["params"]["logits"]["kernel"], float)


def bias(variables):
    return variables["params"]["logits"]["bias"]


def tail_gradients(variables, x, target):
    """Gradients of a logit of `tail`, written out."""
    return (1 - np.tanh(x.astype(float)) ** 2) * kernel(variables)[:, target].reshape(1, *x.shape[1:])


def test_after_a_global_mean_all_are_the_cam_of_the_head():
    model = Net(head="mean")
    variables = draw_variables(model)
    features = activation(model, variables, IMAGES)
    cam = np.einsum("bhwk,kc->bchw", features, kernel(variables))[..., None] / 9
    for cls in (saliency.GradCam, saliency.HiResCam):
        a = saliency.all_classes(cls(relu=False))(model, variables, IMAGES)
        np.testing.assert_allclose(a.values, cam, atol=1e-5)
        np.testing.assert_allclose(a.values.sum(axis=(2, 3, 4)), a.score - bias(variables)[None], atol=1e-5)
        with_relu = saliency.all_classes(cls())(model, variables, IMAGES)
        np.testing.assert_allclose(with_relu.values, np.maximum(cam, 0), atol=1e-5)


def test_before_a_flat_linear_head_hirescam_sums_to_the_logit_without_its_bias():
    model = Net(head="flat")
    variables = draw_variables(model)
    a = saliency.all_classes(saliency.HiResCam("second/relu", relu=False))(model, variables, IMAGES)
    np.testing.assert_allclose(a.values.sum(axis=(2, 3, 4)), a.score - bias(variables)[None], atol=1e-5)
    gradcam = saliency.all_classes(saliency.GradCam("second/relu", relu=False))(model, variables, IMAGES)
    assert np.abs(gradcam.values.sum(axis=(2, 3, 4)) - (a.score - bias(variables)[None])).max() > 0.01


def test_hirescam_is_the_derivative_by_the_strength_of_a_place():
    """Central differences of the rest of the network, each place of the layer made a little stronger in turn."""
    variables = draw_variables(Net())
    features, target, step = activation(Net(), variables, IMAGES), 2, 1e-6
    a = saliency.HiResCam("second/relu", relu=False)(Net(), variables, IMAGES, target)
    for i, j in np.ndindex(3, 3):
        scale = np.zeros((1, 3, 3, 1))
        scale[0, i, j] = step
        up, down = (tail(variables, features * (1 + sign * scale))[:, target] for sign in (1, -1))
        np.testing.assert_allclose(a.values[:, i, j, 0], (up - down) / (2 * step), atol=1e-5)


def test_the_formulas_of_the_papers():
    variables = draw_variables(Net())
    features, target = activation(Net(), variables, IMAGES), 1
    gradients = tail_gradients(variables, features, target)
    squares = gradients**2
    alpha = squares / (2 * squares + features.sum(axis=(1, 2), keepdims=True) * gradients**3)
    positive = np.maximum(gradients, 0)
    weights = {
        saliency.GradCam: gradients.mean(axis=(1, 2), keepdims=True),
        saliency.HiResCam: gradients,
        saliency.LayerCam: positive,
        saliency.GradCamPlusPlus: (alpha * positive).sum(axis=(1, 2), keepdims=True),
    }
    for cls in GRADIENT_MAPS:
        a = cls("second/relu")(Net(), variables, IMAGES, target)
        expected = np.maximum((weights[cls] * features).sum(axis=-1, keepdims=True), 0)
        np.testing.assert_allclose(a.values, expected, atol=1e-5, err_msg=cls.__name__)
    # Xplique has the mean of A where the paper has the sum.
    alpha = squares / (2 * squares + features.mean(axis=(1, 2), keepdims=True) * gradients**3)
    mistaken = ((alpha * positive).sum(axis=(1, 2), keepdims=True) * features).sum(axis=-1, keepdims=True)
    a = saliency.GradCamPlusPlus("second/relu")(Net(), variables, IMAGES, target)
    assert np.abs(a.values - mistaken).max() > 0.1 * np.abs(mistaken).max()


class Same(nn.Module):
    def __call__(self, x):
        return x


class OnePixel(nn.Module):
    """An image of one pixel x, a layer that gives x, and the logits gain times x."""

    gain: tuple[float, float]

    @nn.compact
    def __call__(self, images, train=False):
        return Same(name="same")(images).reshape(-1, 1) * jnp.array([self.gain])


@pytest.mark.parametrize("gain, pixel", [(2.0, -1.0), (0.0, 1.0), (1e-15, 1.0)])
def test_gradcam_plus_plus_divides_by_no_zero(gain, pixel):
    """2 g^2 + A g^3 is zero for A g = -2 and for g = 0, and underflows for small g; the map is then 0, or A g / 2."""
    a = saliency.GradCamPlusPlus(relu=False)(OnePixel((gain, 3.0)), {}, np.full((1, 1, 1, 1), pixel, np.float32), 0)
    np.testing.assert_allclose(a.values, pixel * gain / 2 if pixel > 0 else 0, rtol=1e-6)


class OneConv(nn.Module):
    """The ConvNet_One_Conv of captum's tests: its flattening puts channels first."""

    @nn.compact
    def __call__(self, images, train=False):
        x = Relu(name="relu1")(nn.Conv(2, (3, 3), padding="VALID", name="conv1")(images))
        x = nn.Dense(4, name="fc1")(x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1))
        return Relu(name="relu2")(x)


@pytest.mark.parametrize(
    "layer, expected", [("conv1", [[11.25, 13.5], [20.25, 22.5]]), ("relu1", [[0, 4], [28, 32.5]])]
)
def test_captums_numbers(layer, expected):
    """captum tests/attr/layer/test_grad_cam.py; without ReLU, as captum's default is."""
    column = np.array([1, 1, 1, 1, 1, -1, -1, -1], np.float32)
    variables = {
        "params": {
            "conv1": {"kernel": np.ones((3, 3, 1, 2), np.float32), "bias": np.array([-50, -75], np.float32)},
            "fc1": {"kernel": np.tile(column[:, None], 4), "bias": np.zeros(4, np.float32)},
        }
    }
    images = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
    a = saliency.GradCam(layer, relu=False)(OneConv(), variables, images, 0)
    assert a.score == 54
    np.testing.assert_allclose(a.values[0, ..., 0], expected, atol=1e-5)


@pytest.mark.parametrize("cls", GRADIENT_MAPS)
def test_every_example_has_its_own_map(cls):
    """flax_gradcam differentiates the largest score of the batch: all maps but one are zero. Nor has it a ReLU."""
    variables = draw_variables(Net())
    a = saliency.all_classes(cls("first/conv"))(Net(), variables, IMAGES)
    assert (a.values.max(axis=(2, 3, 4)) > 0).any(axis=1).all()
    signed = saliency.all_classes(cls("first/conv", relu=False))(Net(), variables, IMAGES)
    np.testing.assert_array_equal(a.values, np.maximum(signed.values, 0))
    # A ReLU follows the layer: where it is negative its gradients are zero, and LayerCam has no other reason for less.
    assert (signed.values < 0).any() == (cls is not saliency.LayerCam)


def test_values_are_float32_where_the_network_is_not():
    model = Net(dtype="bfloat16")
    for cls in (*GRADIENT_MAPS, saliency.ScoreCam):
        a = cls("second/relu")(model, draw_variables(model), IMAGES)
        assert a.values.dtype == a.score.dtype == jnp.float32
        assert np.isfinite(a.values).all()


def test_upsampled_maps_repeat_or_interpolate():
    variables = draw_variables(Net())
    small, nearest, bilinear = (
        saliency.GradCam(relu=False, upsample=how)(Net(), variables, IMAGES).values[..., 0]
        for how in (None, "nearest", "bilinear")
    )
    np.testing.assert_array_equal(nearest, small.repeat(2, axis=1).repeat(2, axis=2))
    # Pixels are squares, and their values are at the centres: a quarter of a pixel off, and constant at the edge.
    rows = np.array([[4, 0, 0], [3, 1, 0], [1, 3, 0], [0, 3, 1], [0, 1, 3], [0, 0, 4]]) / 4
    np.testing.assert_allclose(bilinear, rows @ small @ rows.T, atol=1e-6)
