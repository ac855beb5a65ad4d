"""Measures of confidence: laws by construction, then numbers computed by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from jaxclf.losses import CrossEntropy
from jaxclf.reporting.calibration import (
    compute_brier_scores,
    compute_calibration_error,
    compute_negative_log_likelihoods,
    compute_reliability,
    fit_temperature,
)
from jaxclf.reporting.stats import estimate_proportion_interval

CLASSES = 5


def calibrated(random, n=40_000):
    """Logits, and labels drawn from the very probabilities they say."""
    logits = random.normal(scale=2.0, size=(n, CLASSES)).astype(np.float32)
    noise = random.gumbel(size=logits.shape)
    return logits, np.argmax(logits + noise, axis=1)


def of(*probabilities):
    return np.log(np.array(probabilities))


def test_labels_drawn_from_the_probabilities_are_calibrated(random):
    logits, labels = calibrated(random)
    assert compute_calibration_error(logits, labels) < 0.01
    assert fit_temperature(logits, labels) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_the_temperature_undoes_a_factor(factor, random):
    logits, labels = calibrated(random)
    assert fit_temperature(factor * logits, labels) == pytest.approx(factor * fit_temperature(logits, labels), rel=1e-3)


def test_the_temperature_is_the_best_and_changes_no_prediction(random):
    logits, labels = calibrated(random, 2_000)
    best = fit_temperature(3 * logits, labels)

    def loss(divisor):
        return compute_negative_log_likelihoods(3 * logits / divisor, labels).mean()

    assert loss(best) <= min(loss(best * 1.01), loss(best / 1.01), loss(1))
    np.testing.assert_array_equal((3 * logits / best).argmax(axis=1), logits.argmax(axis=1))
    assert compute_calibration_error(3 * logits / best, labels) < compute_calibration_error(3 * logits, labels)


def test_of_predictions_that_are_all_right_the_temperature_is_the_least(random):
    logits = random.normal(size=(100, CLASSES))
    assert fit_temperature(logits, logits.argmax(axis=1)) == pytest.approx(0.05, rel=1e-3)


def test_numbers_computed_by_hand():
    logits, labels = of([0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.1, 0.1, 0.8]), np.array([0, 1, 2])
    np.testing.assert_allclose(
        compute_brier_scores(logits, labels), [0.09 + 0.04 + 0.01, 0.36 + 0.49 + 0.01, 0.01 + 0.01 + 0.04]
    )
    np.testing.assert_allclose(
        compute_negative_log_likelihoods(logits, labels), [-math.log(p) for p in (0.7, 0.3, 0.8)]
    )
    # Bins of a fifth: 0.6 in ]0.4, 0.6], wrong; 0.7 and 0.8 in ]0.6, 0.8], both right.
    found = compute_reliability(logits, labels, bins=5)
    np.testing.assert_array_equal(found.examples, [0, 0, 1, 2, 0])
    np.testing.assert_allclose(found.confidence[2:4], [0.6, 0.75])
    np.testing.assert_allclose(found.accuracy[2:4], [0, 1])
    assert np.isnan(found.accuracy[[0, 1, 4]]).all()
    assert compute_calibration_error(logits, labels, bins=5) == pytest.approx((0.6 + 2 * 0.25) / 3)


def test_the_loss_of_training_is_the_same(random):
    logits, labels = calibrated(random, 50)
    np.testing.assert_allclose(
        compute_negative_log_likelihoods(logits, labels), CrossEntropy()(logits, labels), rtol=1e-5, atol=1e-6
    )


def test_one_that_is_sure_and_wrong_is_as_far_off_as_can_be():
    logits, labels = np.array([[1e4, 0.0]]), np.array([1])
    assert compute_brier_scores(logits, labels)[0] == 2
    assert compute_calibration_error(logits, labels) == 1
    assert compute_negative_log_likelihoods(logits, labels)[0] == 1e4


def test_what_is_not_finite_is_not_passed_over(random):
    logits, labels = calibrated(random, 20)
    logits[3] = np.nan
    for measured in (compute_brier_scores(logits, labels).mean(), compute_calibration_error(logits, labels)):
        assert np.isnan(measured)
    assert compute_reliability(logits, labels).examples.sum() == 20


@given(st.floats(-50, 50))
def test_a_shift_of_all_logits_changes_nothing(shift):
    logits, labels = calibrated(np.random.default_rng(0), 30)
    for measure in (compute_brier_scores, compute_negative_log_likelihoods):
        np.testing.assert_allclose(measure(logits + np.float64(shift), labels), measure(logits, labels), rtol=1e-5)


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (5, 10), (10, 10), (9, 12), (9_809, 10_000)])
def test_the_interval_of_a_share_is_that_of_scipy(successes, n):
    expected = binomtest(successes, n).proportion_ci(0.95, "wilson")
    assert estimate_proportion_interval(successes, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


@given(st.integers(0, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_holds_the_share_and_mirrors(counts):
    successes, n = counts
    low, high = estimate_proportion_interval(successes, n)
    assert 0 <= low <= (successes / n if n else 0.5) <= high <= 1
    assert estimate_proportion_interval(n - successes, n) == pytest.approx((1 - high, 1 - low), abs=1e-9)


def test_nineteen_of_twenty_intervals_hold_the_true_share(random):
    held = [
        low <= 0.9 <= high
        for low, high in (estimate_proportion_interval(int(k), 200) for k in random.binomial(200, 0.9, 4_000))
    ]
    assert np.mean(held) == pytest.approx(0.95, abs=0.02)
