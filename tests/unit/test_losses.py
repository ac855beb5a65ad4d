"""Cross-entropy: the documented softmax, and the laws of every loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from support.components import LOSSES

from jaxclf.losses import CrossEntropy

LOGITS = jnp.array([[1.3, -0.2, 5.2], [0.1, 0.2, 0.3]])
LABELS = jnp.array([0, 2])


@pytest.fixture(params=LOSSES, ids=repr)
def loss(request):
    return request.param


def test_documented_softmax():
    probabilities = [float(jnp.exp(-CrossEntropy()(LOGITS[:1], jnp.array([label]))[0])) for label in range(3)]
    exact = np.exp([1.3, -0.2, 5.2]) / np.exp([1.3, -0.2, 5.2]).sum()
    np.testing.assert_allclose(probabilities, exact, rtol=1e-6)
    np.testing.assert_allclose(probabilities, [0.0197, 0.0044, 0.976], atol=2e-4)  # as the study prints them


def test_one_number_an_example(loss):
    assert loss(LOGITS, LABELS).shape == (2,)


def test_finite_differences(loss):
    check_grads(lambda logits: loss(logits, LABELS), (LOGITS,), order=2, atol=1e-2, rtol=1e-2)


def test_shift_invariance(loss):
    np.testing.assert_allclose(loss(LOGITS + 100.0, LABELS), loss(LOGITS, LABELS), rtol=1e-4)


def test_integer_one_hot_and_soft_labels(loss):
    one_hot = jax.nn.one_hot(LABELS, 3)
    np.testing.assert_allclose(loss(LOGITS, one_hot), loss(LOGITS, LABELS), rtol=1e-6)
    # The loss is linear in the labels.
    soft = 0.3 * one_hot + 0.7 * jax.nn.one_hot(jnp.array([1, 1]), 3)
    mixed = 0.3 * loss(LOGITS, LABELS) + 0.7 * loss(LOGITS, jnp.array([1, 1]))
    np.testing.assert_allclose(loss(LOGITS, soft), mixed, rtol=1e-5)


def test_smoothing_is_a_mixture_with_the_uniform_label():
    uniform = jnp.full((2, 3), 1 / 3)
    expected = 0.9 * CrossEntropy()(LOGITS, LABELS) + 0.1 * CrossEntropy()(LOGITS, uniform)
    np.testing.assert_allclose(CrossEntropy(label_smoothing=0.1)(LOGITS, LABELS), expected, rtol=1e-5)


def test_extreme_logits_stay_finite():
    loss = CrossEntropy()(jnp.array([[1e4, -1e4]]), jnp.array([1]))
    np.testing.assert_allclose(loss, [2e4])
