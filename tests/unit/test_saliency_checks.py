"""Bad input to saliency methods and metrics: an error that names it, or a warning."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.networks import CLASSES, IMAGES, B, Net, draw_variables

from jaxclf import saliency
from jaxclf.errors import UserError
from jaxclf.saliency import checks

MODEL = Net("mean")
GRADIENT = saliency.Gradient()
MATRIX = np.random.default_rng(0).normal(size=(IMAGES[0].size, CLASSES)).astype(np.float32)


def spoil(*rows, value=np.nan):
    images = IMAGES.copy()
    images[list(rows), 2, 3] = value
    return images


@pytest.mark.parametrize("convert", [np.asarray, jnp.asarray], ids=["numpy", "jax"])
@pytest.mark.parametrize(
    ("rows", "value", "words"), [((1,), np.nan, "1 of 3 .* 1,"), ((0, 2), np.inf, "2 of 3 .* 0, 2,")]
)
def test_images_that_are_not_finite_are_counted_and_named(convert, rows, value, words):
    variables = draw_variables(MODEL)
    with pytest.raises(UserError, match=f"{words} counted from 0"):
        GRADIENT(MODEL, variables, convert(spoil(*rows, value=value)))
    a = GRADIENT(MODEL, variables, IMAGES)
    with pytest.raises(UserError, match=words):
        saliency.deletion(MODEL, variables, convert(spoil(*rows, value=value)), a)


def test_many_images_that_are_not_finite_are_named_by_the_first_five():
    with pytest.raises(UserError, match=r"8 of 8 images .* 0, 1, 2, 3, 4, \.\.\., counted"):
        checks.require_finite(np.full((8, 2), np.nan))


def test_inside_a_program_nothing_is_read():
    """An argument, and a constant: neither is refused, and the others of the batch keep their values."""
    variables = draw_variables(MODEL)
    clean = GRADIENT(MODEL, variables, IMAGES).values
    for images in (spoil(1), jnp.asarray(spoil(1))):
        as_argument = jax.jit(lambda images: GRADIENT(MODEL, variables, images).values)(images)
        as_constant = jax.jit(lambda variables: GRADIENT(MODEL, variables, images).values)(variables)  # noqa: B023
        for values in (as_argument, as_constant):
            assert np.isnan(values[1]).any()
            np.testing.assert_allclose(values[::2], clean[::2], rtol=1e-5, atol=1e-6)


def linear(variables, images):
    return images.reshape(images.shape[0], -1) @ variables


def softmax_of(temperature, dtype="float32"):
    """A new model that ends with a softmax: warnings are once for a model."""
    return lambda variables, images: jax.nn.softmax(temperature * linear(variables, images).astype(dtype))


@pytest.mark.parametrize(("score", "dtype"), [("logit", "float32"), ("probability", "bfloat16"), ("margin", "float32")])
def test_probabilities_instead_of_logits_give_one_warning(score, dtype):
    model, method = softmax_of(0.1, dtype), saliency.Gradient(score=score)
    with pytest.warns(UserWarning, match="the model are nonnegative and sum to 1") as found:
        method(model, MATRIX, IMAGES)
    assert len(found) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        method(model, MATRIX, IMAGES)
        saliency.GradientTimesInput()(model, MATRIX, IMAGES)
        jax.jit(method, static_argnums=0)(softmax_of(0.2), MATRIX, IMAGES)


def test_what_is_no_distribution_gives_no_warning(monkeypatch):
    """Logits; logits between 0 and 1 that do not sum to 1; log probabilities; one class."""
    tested = []
    compute = checks.compute_logits
    monkeypatch.setattr(checks, "compute_logits", lambda *args: tested.append(args) or compute(*args))
    for model in (
        lambda v, x: 100 + linear(v, x),
        lambda v, x: jax.nn.sigmoid(linear(v, x)),
        lambda v, x: jax.nn.log_softmax(linear(v, x)),
        lambda v, x: jnp.ones((len(x), 1)) + 0 * linear(v, x)[:, :1],
    ):
        GRADIENT(model, MATRIX, IMAGES)
    assert [args[2].shape[0] for args in tested] == [B, B]  # only where the scores could be probabilities


@pytest.mark.parametrize(
    ("layer", "words"),
    [("secnd", "did you mean second"), ("second/rel", "did you mean second/relu"), ("zzz", "'zzz': choose")],
)
def test_a_layer_that_does_not_exist_is_answered_with_the_nearest(layer, words):
    with pytest.raises(UserError, match=words):
        saliency.GradCam(layer)(MODEL, draw_variables(MODEL), IMAGES)
