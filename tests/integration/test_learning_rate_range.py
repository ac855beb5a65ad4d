"""Learning-rate range test: schedule, smoothing, suggestions for known curves, and a real network."""

from dataclasses import dataclass, replace

import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from jaxclf.config import Config
from jaxclf.datasets import Mnist
from jaxclf.errors import UserError
from jaxclf.models import Mlp
from jaxclf.optimizers import Sgd
from jaxclf.training.devices import Devices
from jaxclf.training.lr_finder import (
    STEPS,
    ExponentialIncrease,
    RangeTestCurve,
    has_diverged,
    make_test_config,
    run_range_test,
    smooth,
    suggest_rates,
)
from jaxclf.types import Splits

LINEAR = Config(Mnist(), Mlp(features=(), classes=10), Sgd(learning_rate=0.1), epochs=1, batch_size=8)
losses = arrays(np.float64, st.integers(1, 60), elements=st.floats(0, 10))


def test_rates_rise_by_equal_factors():
    schedule = ExponentialIncrease(1e-4, 1.0).build(7.0, 1000)
    rates = np.array([schedule(step) for step in range(STEPS)])
    assert (rates[0], rates[-1]) == (pytest.approx(1e-4), pytest.approx(1.0))
    np.testing.assert_allclose(rates[1:] / rates[:-1], 1e4 ** (1 / (STEPS - 1)))


@given(losses)
def test_smoothing_stays_between_minimum_and_maximum(values):
    smoothed = smooth(values)
    assert np.all(smoothed >= values.min() - 1e-9)
    assert np.all(smoothed <= values.max() + 1e-9)


def test_smoothing_keeps_a_symmetric_minimum_and_removes_noise(random):
    steps = np.arange(200)
    dip = ((steps - 90) / 100) ** 2
    assert np.argmin(smooth(dip)) == 90
    noise = random.normal(size=2_000)
    assert np.std(smooth(noise)[50:-50]) < 0.35


def curve(smoothed, diverged=True):
    rates = np.geomspace(1e-5, 1.0, len(smoothed))
    return RangeTestCurve(rates, smoothed, smoothed, diverged)


def test_suggestions_for_a_known_curve():
    decades = np.linspace(-5, 0, 501)
    falling = 2.0 - 1.5 / (1 + np.exp(-4 * (decades + 3)))  # steepest at 1e-3
    rising_again = np.where(decades > -1, 20 * (decades + 1), 0.0)
    found = suggest_rates(curve(falling + rising_again))
    assert found.steepest == pytest.approx(1e-3, rel=0.02)
    assert found.highest == pytest.approx(0.1)
    lowest = suggest_rates(curve(falling + np.maximum(decades + 1, 0) * 0.3, diverged=False))
    assert lowest.highest == pytest.approx(0.1, rel=0.1)


def test_a_loss_that_only_rises_is_refused():
    with pytest.raises(UserError, match="does not fall at any learning rate from 1e-05"):
        suggest_rates(curve(np.linspace(1, 2, 50)))


def test_divergence_is_four_times_the_minimum():
    assert has_diverged(np.array([2.0, 1.0, 4.1]))
    assert not has_diverged(np.array([2.0, 1.0, 3.9]))


class Untouchable:
    """Images that must not be read."""

    shape = (9, 28, 28, 1)

    def __getitem__(self, indices):
        raise AssertionError("the range test read images of another split")


@pytest.fixture(scope="module")
def found(digits):
    """The range test of a linear classifier on a few digits, with validation and test splits that cannot be read."""
    held = replace(digits.test, images=Untouchable(), labels=np.zeros(9, np.int32))
    return run_range_test(LINEAR, Splits(digits.train, held, held), Devices.all(), 1e-4, 1e3)


def test_a_classifier_learns_and_then_diverges(found):
    assert found.diverged
    assert len(found.rates) < STEPS
    assert found.losses[0] == pytest.approx(np.log(10), rel=0.2)
    assert found.smoothed.min() < 0.7 * found.losses[0]
    assert found.smoothed[-1] > 4 * found.smoothed.min()
    np.testing.assert_allclose(found.rates, 1e-4 * 1e7 ** (np.arange(len(found.rates)) / (STEPS - 1)), rtol=1e-4)


def test_the_suggestion_is_within_the_range_and_a_tenth_of_the_divergence(found):
    suggestion = suggest_rates(found)
    assert found.rates[0] < suggestion.steepest < suggestion.highest
    assert suggestion.highest == pytest.approx(found.rates[-1] / 10)


def test_a_range_that_does_not_diverge_ends_at_its_highest_rate(digits):
    gentle = run_range_test(LINEAR, digits, Devices.all(), 1e-6, 1e-4)
    assert not gentle.diverged
    assert len(gentle.rates) == STEPS
    assert gentle.rates[-1] == pytest.approx(1e-4)


def test_a_loss_that_is_not_finite_ends_the_test_whatever_the_config_says(digits):
    ends = []
    for policy in ("abort", "skip", "rollback"):
        curve = run_range_test(replace(LINEAR, non_finite=policy), digits, Devices.all(), 1e-2, 1e35)
        assert curve.diverged
        ends.append((len(curve.rates), curve.rates[-1]))
    assert ends[0] == ends[1] == ends[2]


def test_a_start_without_a_finite_loss_is_refused(digits):
    deep = replace(LINEAR, model=Mlp(features=(30, 30), classes=10))
    with pytest.raises(UserError, match=r"not finite at a learning rate of 1e\+30; start at a lower one"):
        run_range_test(deep, digits, Devices.all(), 1e30, 1e35)


@dataclass(frozen=True)
class Mine:
    """An optimizer without the fields that a range test sets."""

    def build(self, total_steps, epochs=1, model=None):
        return optax.sgd(0.1)

    def learning_rates(self, total_steps, epochs=1):
        return optax.constant_schedule(0.1)


def test_configs_that_cannot_be_tested_are_refused(digits):
    with pytest.raises(UserError, match=r"Mine\(\) lacks one of them"):
        make_test_config(replace(LINEAR, optimizer=Mine()), digits, 1e-3, 1.0)
    with pytest.raises(UserError, match="the lower one first"):
        make_test_config(LINEAR, digits, 1.0, 1e-3)
