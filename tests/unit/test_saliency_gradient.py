"""Gradients of every kind of score: finite differences, softmax identities, all classes, and the models they take."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclf import saliency
from jaxclf.errors import UserError
from jaxclf.saliency.query import select_scores

B, N, CLASSES = 4, 6, 5
SCORES = ("logit", "probability", "log_probability", "margin")


def smooth(variables, images):
    """A model with curvature everywhere."""
    return jnp.tanh(images @ variables["a"]) @ variables["b"]


@pytest.fixture
def variables(random):
    return {"a": np.float32(random.normal(size=(N, 8))), "b": np.float32(random.normal(size=(8, CLASSES)))}


@pytest.fixture
def images(random):
    return np.float32(random.normal(size=(B, N)))


@pytest.mark.parametrize("score", SCORES)
def test_gradients_are_finite_differences(score, variables, images):
    a = saliency.Gradient(score=score)(smooth, variables, images)
    targets = np.argmax(smooth(variables, images), axis=1)
    step = 1e-2
    for i in range(N):
        up, down = (
            select_scores(score, smooth(variables, images + s * np.eye(N)[i]), targets)[:, 0] for s in (step, -step)
        )
        np.testing.assert_allclose(a.values[:, i], (up - down) / (2 * step), atol=2e-3)


def test_gradients_of_probabilities_follow_from_those_of_logits(variables, images):
    """grad p_c = p_c (J_c - sum_k p_k J_k), grad log p_c = J_c - sum_k p_k J_k, and the gradients of all p sum to 0."""
    jacobian = saliency.all_classes(saliency.Gradient())(smooth, variables, images).values
    p = jax.nn.softmax(smooth(variables, images))[..., None]
    mean = (p * jacobian).sum(axis=1, keepdims=True)
    of_p, of_log_p = (
        saliency.all_classes(saliency.Gradient(score=score))(smooth, variables, images).values
        for score in ("probability", "log_probability")
    )
    np.testing.assert_allclose(of_p, p * (jacobian - mean), atol=1e-5)
    np.testing.assert_allclose(of_log_p, jacobian - mean, atol=1e-5)
    np.testing.assert_allclose(of_p.sum(axis=1), 0, atol=1e-5)


def test_the_largest_probability_has_the_gradient_of_the_predicted_class(variables, images):
    a = saliency.Gradient(score="probability")(smooth, variables, images)
    largest = jax.grad(lambda x: jax.nn.softmax(smooth(variables, x)).max(axis=1).sum())(images)
    np.testing.assert_allclose(a.values, largest, atol=1e-6)


def test_equal_logits_do_not_share_a_gradient():
    """`jnp.max` would split it: of equal logits the first is predicted, and the margin's other class is the next."""
    variables = np.float32([[1, 1, 1], [1, 2, 4]])
    linear = lambda variables, images: images @ variables  # noqa: E731
    images = np.float32([[1, 0]])
    gradient = partial(saliency.Gradient(), linear, variables, images)
    np.testing.assert_array_equal(gradient().values, [[1, 1]])
    margin = saliency.Gradient(score="margin")(linear, variables, images)
    np.testing.assert_array_equal(margin.values, [[0, 1 - 2]])
    np.testing.assert_array_equal(margin.score, [0])


def test_a_margin_is_the_distance_to_the_largest_other():
    logits = np.float32([[3, 1, 2], [0, 5, 4]])
    np.testing.assert_array_equal(select_scores("margin", logits, None), [[1, -2, -1], [-5, 1, -1]])


def test_a_target_that_is_no_class_is_not_a_number(variables, images):
    explain = jax.jit(lambda targets: saliency.Gradient()(smooth, variables, images, targets))  # where it is not known
    a = explain(np.array([0, CLASSES, -1, CLASSES - 1]))
    np.testing.assert_array_equal(np.isnan(a.score), [False, True, True, False])
    np.testing.assert_array_equal(np.isfinite(a.values[::3]), True)


def test_gradient_times_input_is_exact_where_the_score_is_linear(random):
    variables = np.float32(random.normal(size=(N, CLASSES)))
    linear = lambda variables, images: images @ variables + 3.0  # noqa: E731
    images, baseline = np.float32(random.normal(size=(2, B, N)))
    a = saliency.GradientTimesInput()(linear, variables, images, 2, baseline=baseline)
    np.testing.assert_allclose(a.values, variables[:, 2] * (images - baseline), rtol=1e-5)
    np.testing.assert_allclose(a.delta, 0, atol=1e-5)
    np.testing.assert_array_equal(a.evaluations, 2)


@pytest.mark.parametrize("baseline", [0.25, np.full(N, 0.25, np.float32), np.full((B, N), 0.25, np.float32)])
def test_a_baseline_is_a_number_an_image_or_one_an_example(baseline, variables, images):
    a = saliency.GradientTimesInput()(smooth, variables, images, baseline=baseline)
    gradient = saliency.Gradient()(smooth, variables, images)
    np.testing.assert_allclose(a.values, gradient.values * (images - 0.25), rtol=1e-6)


def test_integer_baselines_are_bytes_as_images_are(variables):
    images = np.arange(B * N, dtype=np.uint8).reshape(B, N)
    call = partial(saliency.GradientTimesInput(), smooth, variables, images)
    one, other = call(baseline=np.full(N, 51, np.uint8)), call(baseline=0.2)
    np.testing.assert_allclose(one.values, other.values, atol=1e-6)


def test_attributions_can_be_differentiated_by_weights_and_images(variables, images):
    """As in training with attribution priors: the derivative of the gradient is the Hessian's."""

    def score(x):
        return smooth(variables, x[None])[0, 1]

    hessian = jax.vmap(jax.hessian(score))(images)
    rows = jax.jacobian(lambda x: saliency.Gradient()(smooth, variables, x, 1).values.sum(axis=0))(images)
    np.testing.assert_allclose(np.moveaxis(rows, 1, 0), hessian, atol=1e-5)
    by_weights = jax.grad(lambda v: saliency.Gradient()(smooth, v, images, 1).values.sum())(variables)
    assert np.abs(by_weights["a"]).max() > 0


def test_what_gives_no_logits_is_named(variables, images):
    with pytest.raises(UserError, match=r"gives \[4\] for 4 images: expected \[b, classes\]"):
        saliency.Gradient()(lambda variables, images: images[:, 0], variables, images)
