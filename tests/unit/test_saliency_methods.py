"""Every saliency method once on a small network; integration/test_saliency.py checks each property of each setting."""

import jax
import numpy as np
import pytest
from support.components import CHEAPEST
from support.networks import draw_variables

from jaxclf.errors import UserError
from jaxclf.models import Cnn
from jaxclf.saliency import Gradient

MODEL = Cnn(features=(2, 2), dense=(), classes=3, kernel_size=3)


@pytest.fixture(params=CHEAPEST.values(), ids=lambda method: type(method).__name__)
def method(request):
    return request.param


def test_attributions_are_finite_and_of_the_predicted_class(method, random):
    images = random.integers(0, 256, (3, 8, 8, 1), np.uint8)
    variables = draw_variables(MODEL, images.shape)
    attribution = method(MODEL, variables, images, key=jax.random.split(jax.random.key(1), 3))
    assert attribution.values.shape[0] == 3
    assert attribution.score.shape == attribution.evaluations.shape == (3,)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(attribution))
    if method.score == "logit":
        logits = MODEL.apply(variables, images)
        np.testing.assert_allclose(attribution.score, logits.max(axis=1), rtol=1e-5, atol=1e-6)


def test_a_target_that_is_no_class_is_refused_and_under_jit_gives_nan(method, random):
    """Case F7: never zeros, which read "no pixel matters"."""
    images, targets = random.random((2, 8, 8, 1), np.float32), np.array([0, 99])
    variables, key = draw_variables(MODEL, images.shape), jax.random.key(1)
    for wrong in (targets, 3, -1):
        with pytest.raises(UserError, match=r"target (3|-1|99) is no class of the model: expected 0 to 2"):
            method(MODEL, variables, images, wrong, key=key)
    if not method.host:
        a = jax.jit(lambda targets: method(MODEL, variables, images, targets, key=key))(targets)
        assert np.isfinite(a.values[0]).all()
        assert np.isnan(a.values[1]).all()


def test_a_function_of_floats_explains_integer_images_with_and_without_targets(random):
    """A convolution refuses integers; methods scale images to [0, 1] before the model has them."""

    def convolve(kernel, images):
        layout = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=layout).sum((1, 2))

    kernel, images = random.random((3, 3, 1, 2), np.float32), random.integers(0, 256, (2, 6, 6, 1), np.uint8)
    predicted = Gradient()(convolve, kernel, images)
    given = Gradient()(convolve, kernel, images, np.argmax(convolve(kernel, np.float32(images)), axis=1))
    np.testing.assert_array_equal(predicted.values, given.values)
