"""Class-activation maps: what linear heads make of them, the papers' formulas written out, captum's numbers, layers."""

from functools import cache

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclf import saliency
from jaxclf.models import Cnn, Mlp
from jaxclf.saliency.query import Query
from jaxclf.types import UserError

GRADIENT_MAPS = [saliency.GradCam, saliency.GradCamPlusPlus, saliency.HiResCam, saliency.LayerCam]
B, CLASSES = 3, 4
SHAPE = (B, 6, 6, 1)


class Relu(nn.Module):
    def __call__(self, x):
        return nn.relu(x)


class Block(nn.Module):
    features: int

    @nn.compact
    def __call__(self, x):
        return Relu(name="relu")(nn.Conv(self.features, (3, 3), name="conv")(x))


WRAPS = {"none": Block, "remat": nn.remat(Block), "jit": nn.jit(Block)}


class Net(nn.Module):
    """Two blocks and a head; `wrap` is a transformation of the blocks' class."""

    head: str = "tanh"
    wrap: str = "none"
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x, train=False):
        block = WRAPS[self.wrap]
        x = block(2, name="first")(x.astype(self.dtype))
        x = block(5, name="second")(nn.max_pool(x, (2, 2), (2, 2)))
        if self.head == "mean":
            x = x.mean(axis=(1, 2))
        if self.head == "tanh":
            x = nn.tanh(x)
        return nn.Dense(CLASSES, name="logits")(x.reshape(x.shape[0], -1))


class Twins(nn.Module):
    """Two blocks alike: under nn.jit the trace of the first serves the second."""

    wrap: str = "none"

    @nn.compact
    def __call__(self, x, train=False):
        for name in ("first", "second"):
            x = WRAPS[self.wrap](1, name=name)(x)
        return nn.Dense(CLASSES, name="logits")(x.reshape(x.shape[0], -1))


@pytest.fixture
def images(random):
    return random.random(SHAPE, np.float32)


@cache
def initialized(model, shape=SHAPE):
    """Variables with biases that are not zero, as training leaves them."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct(shape, np.float32))
    random = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: 0.4 * random.standard_normal(leaf.shape, np.float32), shapes)


def activation(model, variables, images, block="second", layer="relu"):
    """What a layer of a block puts out, by Flax's own means."""
    _, state = model.apply(variables, images, capture_intermediates=True)
    return np.asarray(state["intermediates"][block][layer]["__call__"][0])


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


def test_after_a_global_mean_all_are_the_cam_of_the_head(images):
    model = Net(head="mean")
    variables = initialized(model)
    features = activation(model, variables, images)
    cam = np.einsum("bhwk,kc->bchw", features, kernel(variables))[..., None] / 9
    for cls in (saliency.GradCam, saliency.HiResCam):
        a = saliency.all_classes(cls(relu=False))(model, variables, images)
        np.testing.assert_allclose(a.values, cam, atol=1e-5)
        np.testing.assert_allclose(a.values.sum(axis=(2, 3, 4)), a.score - bias(variables)[None], atol=1e-5)
        with_relu = saliency.all_classes(cls())(model, variables, images)
        np.testing.assert_allclose(with_relu.values, np.maximum(cam, 0), atol=1e-5)


def test_before_a_flat_linear_head_hirescam_sums_to_the_logit_without_its_bias(images):
    model = Net(head="flat")
    variables = initialized(model)
    a = saliency.all_classes(saliency.HiResCam("second/relu", relu=False))(model, variables, images)
    np.testing.assert_allclose(a.values.sum(axis=(2, 3, 4)), a.score - bias(variables)[None], atol=1e-5)
    gradcam = saliency.all_classes(saliency.GradCam("second/relu", relu=False))(model, variables, images)
    assert np.abs(gradcam.values.sum(axis=(2, 3, 4)) - (a.score - bias(variables)[None])).max() > 0.01


def test_hirescam_is_the_derivative_by_the_strength_of_a_place(images):
    """Central differences of the rest of the network, each place of the layer made a little stronger in turn."""
    variables = initialized(Net())
    features, target, step = activation(Net(), variables, images), 2, 1e-6
    a = saliency.HiResCam("second/relu", relu=False)(Net(), variables, images, target)
    for i, j in np.ndindex(3, 3):
        scale = np.zeros((1, 3, 3, 1))
        scale[0, i, j] = step
        up, down = (tail(variables, features * (1 + sign * scale))[:, target] for sign in (1, -1))
        np.testing.assert_allclose(a.values[:, i, j, 0], (up - down) / (2 * step), atol=1e-5)


def test_the_formulas_of_the_papers(images):
    variables = initialized(Net())
    features, target = activation(Net(), variables, images), 1
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
        a = cls("second/relu")(Net(), variables, images, target)
        expected = np.maximum((weights[cls] * features).sum(axis=-1, keepdims=True), 0)
        np.testing.assert_allclose(a.values, expected, atol=1e-5, err_msg=cls.__name__)
    # Xplique has the mean of A where the paper has the sum.
    alpha = squares / (2 * squares + features.mean(axis=(1, 2), keepdims=True) * gradients**3)
    mistaken = ((alpha * positive).sum(axis=(1, 2), keepdims=True) * features).sum(axis=-1, keepdims=True)
    a = saliency.GradCamPlusPlus("second/relu")(Net(), variables, images, target)
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
    a = saliency.GradCamPlusPlus(relu=False)(OnePixel((gain, 1.0)), {}, np.full((1, 1, 1, 1), pixel, np.float32), 0)
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
def test_every_example_has_its_own_map(images, cls):
    """flax_gradcam differentiates the largest score of the batch: all maps but one are zero. Nor has it a ReLU."""
    variables = initialized(Net())
    a = saliency.all_classes(cls("first/conv"))(Net(), variables, images)
    assert (a.values.max(axis=(2, 3, 4)) > 0).any(axis=1).all()
    signed = saliency.all_classes(cls("first/conv", relu=False))(Net(), variables, images)
    np.testing.assert_array_equal(a.values, np.maximum(signed.values, 0))
    # A ReLU follows the layer: where it is negative its gradients are zero, and LayerCam has no other reason for less.
    assert (signed.values < 0).any() == (cls is not saliency.LayerCam)


def increases(model, variables, image, features, baseline, target):
    """How much more of a logit each channel lets through than there is at the baseline, channel by channel."""
    scores = []
    for k in range(features.shape[-1]):
        mask = np.asarray(jax.image.resize(features[..., k], image.shape[:2], "bilinear"))
        spread = mask.max() - mask.min()
        mask = (mask - mask.min()) / spread if spread > 1e-6 else np.zeros_like(mask)
        seen = baseline + mask[..., None] * (image - baseline)
        scores.append(model.apply(variables, seen[None])[0, target])
    return np.array(scores) - float(model.apply(variables, np.full_like(image, baseline)[None])[0, target])


@pytest.mark.parametrize("baseline", [0.0, 0.4])
def test_scorecam_is_the_loop_over_channels(images, baseline):
    variables = initialized(Net())
    dead = {"conv": {**variables["params"]["second"]["conv"], "bias": np.array([-9, 0, 0, 0.1, 0.2], np.float32)}}
    variables = {"params": {**variables["params"], "second": dead}}
    features, target = activation(Net(), variables, images), 3
    assert (np.ptp(features, axis=(0, 1, 2)) > 0).tolist() == [False, True, True, True, True]
    a = saliency.ScoreCam("second/relu", relu=False)(Net(), variables, images, target, baseline=baseline)
    for i, image in enumerate(images):
        weights = np.exp(increases(Net(), variables, image, features[i], baseline, target))
        expected = features[i] @ (weights / weights.sum())
        np.testing.assert_allclose(a.values[i, ..., 0], expected, atol=1e-5)
    assert (a.evaluations == 1 + features.shape[-1]).all()


def test_a_channel_that_is_the_same_everywhere_shows_scorecam_the_baseline():
    """Also where upsampling leaves rounding errors in it."""

    class Constant(nn.Module):
        @nn.compact
        def __call__(self, images, train=False):
            x = nn.Conv(2, (1, 1), name="conv")(images[:, ::2, ::2])
            return jnp.stack([images.sum(axis=(1, 2, 3)), x.sum(axis=(1, 2, 3))], axis=1)

    layer = {"kernel": np.array([[[[0, 1]]]], np.float32), "bias": np.full(2, 0.3, np.float32)}
    ramp = np.arange(49, dtype=np.float32).reshape(1, 7, 7, 1) / 49
    a = saliency.ScoreCam(relu=False)(Constant(), {"params": {"conv": layer}}, ramp, 0)
    mask = np.asarray(jax.image.resize(ramp[:, ::2, ::2], ramp.shape, "bilinear"))
    seen = (((mask - mask.min()) / np.ptp(mask)) * ramp).sum()
    dead, alive = np.exp([0.0 - seen, 0.0]) / np.exp([0.0 - seen, 0.0]).sum()
    np.testing.assert_allclose(a.values, dead * 0.3 + alive * (0.3 + ramp[:, ::2, ::2]), atol=1e-5)


def test_no_layer_is_the_last_spatial_one(images):
    variables = initialized(Net())
    for cls in (saliency.HiResCam, saliency.ScoreCam):
        last, named = (cls(layer)(Net(), variables, images).values for layer in (None, "second"))
        np.testing.assert_array_equal(last, named)
    model = Cnn(features=(2, 3), dense=(4,), classes=CLASSES)
    last, named = (saliency.GradCam(layer)(model, initialized(model), images).values for layer in (None, "pool2"))
    np.testing.assert_array_equal(last, named)


@pytest.mark.parametrize("wrap", ["remat", "jit"])
def test_layers_inside_transformed_modules_are_layers_too(images, wrap):
    variables = initialized(Net())
    for method in (saliency.HiResCam("first/conv", relu=False), saliency.ScoreCam("second/conv")):
        plain, wrapped = (method(Net(wrap=kind), variables, images, 0).values for kind in ("none", wrap))
        np.testing.assert_allclose(wrapped, plain, atol=1e-6)


@pytest.mark.parametrize("wrap", ["remat", "jit"])
def test_of_two_modules_alike_both_are_layers(images, wrap):
    variables = initialized(Twins())
    for layer in (None, "second/conv", "first/conv"):
        method = saliency.HiResCam(layer, relu=False)
        plain, wrapped = (method(Twins(kind), variables, images, 0).values for kind in ("none", wrap))
        assert np.abs(plain).max() > 0.01
        np.testing.assert_allclose(wrapped, plain, atol=1e-6)


def test_the_model_that_a_query_rewrites_is_explained(images):
    """Rewritten so that all it gives is doubled: logits, and with them gradients, and the layer's output."""
    variables = initialized(Net())
    query = Query(Net(), variables, jnp.asarray(images), None, True, "logit", None, jnp.zeros_like(images), 8)

    def doubled(function):
        return lambda *arguments: jax.tree.map(lambda x: 2 * x, function(*arguments))

    plain, twice = (saliency.GradCam().explain(q) for q in (query, query.replace(rewrite=doubled)))
    np.testing.assert_allclose(twice.score, 2 * plain.score, atol=1e-6)
    np.testing.assert_allclose(twice.values, 4 * plain.values, atol=1e-6)
    assert plain.values.max() > 0.01


def test_values_are_float32_where_the_network_is_not(images):
    model = Net(dtype="bfloat16")
    for cls in (*GRADIENT_MAPS, saliency.ScoreCam):
        a = cls("second/relu")(model, initialized(model), images)
        assert a.values.dtype == a.score.dtype == jnp.float32
        assert np.isfinite(a.values).all()


def test_upsampled_maps_repeat_or_interpolate(images):
    variables = initialized(Net())
    small, nearest, bilinear = (
        saliency.GradCam(relu=False, upsample=how)(Net(), variables, images).values[..., 0]
        for how in (None, "nearest", "bilinear")
    )
    np.testing.assert_array_equal(nearest, small.repeat(2, axis=1).repeat(2, axis=2))
    # Pixels are squares, and their values are at the centres: a quarter of a pixel off, and constant at the edge.
    rows = np.array([[4, 0, 0], [3, 1, 0], [1, 3, 0], [0, 3, 1], [0, 1, 3], [0, 0, 4]]) / 4
    np.testing.assert_allclose(bilinear, rows @ small @ rows.T, atol=1e-6)


class Reused(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        relu = Relu(name="relu")
        x = relu(nn.Conv(2, (3, 3), name="conv1")(x))
        x = relu(nn.Conv(2, (3, 3), name="conv2")(x))
        return nn.Dense(CLASSES, name="logits")(x.mean(axis=(1, 2)))


class Looped(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        def body(block, x, _):
            return nn.relu(block(x)), None

        loop = nn.scan(body, variable_axes={"params": 0}, split_rngs={"params": True}, length=2)
        x, _ = loop(nn.Conv(1, (3, 3), name="inside"), x, None)
        x = nn.Conv(2, (3, 3), name="after")(x)
        return nn.Dense(CLASSES, name="logits")(x.mean(axis=(1, 2)))


@pytest.mark.parametrize(
    "model, layer, message",
    [
        (Net(), "third", "no layer 'third': the layers are first/conv, first/relu, first, second/conv, second/relu, "),
        (Net(), "logits", r"layer 'logits' puts out \[3, 4\]: expected \[b, h, w, c\]"),
        (Reused(), "relu", "layer 'relu' is called 2 times: expected once; choose one of conv1, conv2, relu, logits"),
        (Reused(), None, "layer 'relu' is called 2 times"),
        (Looped(), "inside", "no layer 'inside': the layers are after, logits"),
        (Mlp(features=(3,), classes=CLASSES), None, r"no layer puts out \[b, h, w, c\], .* are flatten, dense1, log"),
    ],
)
def test_a_layer_that_will_not_do_is_named(images, model, layer, message):
    variables = initialized(model)
    for cls in (saliency.GradCam, saliency.ScoreCam):
        with pytest.raises(UserError, match=message):
            cls(layer)(model, variables, images)


def test_layers_called_once_beside_others_will_do(images):
    for model, layer in ((Reused(), "conv2"), (Looped(), "after")):
        a = saliency.HiResCam(layer, relu=False)(model, initialized(model), images)
        assert a.values.shape == (B, 6, 6, 1)
        assert np.abs(a.values).max() > 0


def test_what_has_no_layers_or_no_sides_is_named(images):
    variables = initialized(Net())

    def function(variables, images):
        return Net().apply(variables, images)

    with pytest.raises(UserError, match="function is no Linen module"):
        saliency.GradCam()(function, variables, images)
    model = Cnn(features=(2,), dense=(), classes=CLASSES)
    flat = images.reshape(B, -1)
    variables = initialized(model, flat.shape)
    assert saliency.GradCam("conv1")(model, variables, flat).values.shape == (B, 6, 6, 1)
    for method in (saliency.GradCam(upsample="nearest"), saliency.ScoreCam()):
        with pytest.raises(UserError, match=r"images of shape \[3, 36\] have no height and width"):
            method(model, variables, flat)
