"""A network whose first layer is computed from training images: what it computes, and that runs start with it."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclf import Config, fit
from jaxclf.datasets import Arrays
from jaxclf.errors import UserError
from jaxclf.models import Normalize, WhitenedCnn
from jaxclf.models.whitened import EPSILON, draw_partial_identity, find_maxima
from jaxclf.optimizers import Muon, Sgd
from jaxclf.types import to_unit_range

MODEL = WhitenedCnn(features=(30, 5), pools=(2, 2), classes=2, normalize=Normalize((0.5, 0.4, 0.3), (0.2, 0.2, 0.2)))


@pytest.fixture
def images(random):
    """Smooth images: neighboring pixels are alike."""
    noise = random.integers(0, 256, (50, 4, 4, 3))
    return np.uint8(noise.repeat(2, axis=1).repeat(2, axis=2) // 2 + random.integers(0, 100, (50, 8, 8, 3)))


def split(images):
    """Normalized 2 x 2 patches [n, 7, 7, 12]."""
    x = (images / 255 - np.array([0.5, 0.4, 0.3])) / 0.2
    return np.concatenate([x[:, i : i + 7, j : j + 7] for i in (0, 1) for j in (0, 1)], axis=-1)


def test_patches_are_whitened(images):
    variables = MODEL.init(jax.random.key(0), images[:1])
    whitened = MODEL.initialize_from_images(variables, images)
    kernel = np.asarray(whitened["params"]["whiten"]["kernel"], np.float64).reshape(12, 12)
    patches = split(images).reshape(-1, 12)
    before, after = (x.T @ x / len(x) for x in (patches, patches @ kernel))
    assert np.linalg.cond(before) > 10
    squares = np.linalg.eigvalsh(before)
    np.testing.assert_allclose(np.linalg.eigvalsh(after), squares / (squares + EPSILON), rtol=1e-4)
    np.testing.assert_allclose(after, np.diag(np.diag(after)), atol=1e-4)
    del variables["params"]["whiten"], whitened["params"]["whiten"]
    jax.tree.map(np.testing.assert_array_equal, variables, whitened)


def test_the_first_convolution_sees_patches_and_their_negatives(images):
    variables = MODEL.initialize_from_images(MODEL.init(jax.random.key(0), images[:1]), images)
    _, state = MODEL.apply(variables, images, capture_intermediates=True)
    x = split(images) @ np.asarray(variables["params"]["whiten"]["kernel"]).reshape(12, 12)
    both = nn.gelu(jnp.concatenate([x, -x], axis=-1), approximate=False)
    # At the start 24 of the 30 filters return their channel.
    found = state["intermediates"]["conv1"]["__call__"][0]
    np.testing.assert_allclose(found[:, :7, :7, :24], both, atol=1e-4)
    assert np.abs(found[..., 24:]).std() > 0.1


def test_a_kernel_with_fewer_filters_returns_the_first_channels(random):
    kernel = draw_partial_identity(jax.random.key(0), (3, 3, 7, 4))
    x = random.normal(size=(2, 5, 5, 7)).astype(np.float32)
    y = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    np.testing.assert_allclose(y, x[..., :4], atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 1, 1, 3), (2, 4, 4, 3), (2, 3, 7, 3)])
def test_the_maximum_is_over_all_positions(shape, random):
    x = random.normal(size=shape).astype(np.float32)
    np.testing.assert_array_equal(find_maxima(x), x.max(axis=(1, 2)))
    gradient = jax.grad(lambda x: find_maxima(x).sum())(x)
    np.testing.assert_array_equal(gradient, x == x.max(axis=(1, 2), keepdims=True))


def test_a_run_starts_with_the_whitening_of_its_images_and_keeps_it(images):
    data = Arrays(images, np.arange(50) % 2, test=(images, np.arange(50) % 2))
    config = Config(data, MODEL, Muon(learning_rate=0.01, freeze=("whiten",)), epochs=1, batch_size=8)
    found = fit(config).variables["params"]
    random = MODEL.init(jax.random.key(0), images[:1])
    expected = MODEL.initialize_from_images(random, images)["params"]["whiten"]["kernel"]
    # Which of two opposite vectors is an axis depends on rounding.
    np.testing.assert_allclose(np.abs(found["whiten"]["kernel"]), np.abs(expected), rtol=1e-3, atol=1e-4)
    # The filters that begin as the identity, whatever the seed.
    assert np.abs(found["conv1"]["kernel"] - random["params"]["conv1"]["kernel"])[..., :24].max() > 1e-3


def test_a_model_of_ones_own_may_start_from_images(images):
    class Centered(nn.Module):
        @nn.compact
        def __call__(self, x):
            mean = self.param("mean", nn.initializers.zeros, x.shape[1:])
            return nn.Dense(2, name="logits")((to_unit_range(x) - mean[None]).reshape(len(x), -1))

        def initialize_from_images(self, variables, images):
            mean = to_unit_range(images).mean(axis=0)
            return variables | {"params": variables["params"] | {"mean": mean}}

    data = Arrays(images, np.arange(50) % 2, test=(images, np.arange(50) % 2))
    run = fit(Config(data, Centered(), Sgd(learning_rate=0.0), epochs=1, batch_size=8))
    np.testing.assert_allclose(run.variables["params"]["mean"], (images / 255).mean(axis=0), rtol=1e-5)
    # Variables that are given are not changed.
    given = fit(Config(data, Centered(), Sgd(learning_rate=0.0), epochs=1, batch_size=8), init=run.variables | {})
    jax.tree.map(np.testing.assert_array_equal, given.variables, run.variables)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"pools": (2,)}, "features has 2 stages and pools 1"),
        ({"pools": (2, 0)}, r"pools\[1\]=0"),
        ({"patch": 0}, "patch=0"),
        ({"pools": (2, 5)}, "feature map is empty after pool2"),
    ],
)
def test_wrong_stages_are_named(wrong, message, images):
    with pytest.raises(UserError, match=message):
        jax.eval_shape(MODEL.clone(**wrong).init, jax.random.key(0), images[:1])
