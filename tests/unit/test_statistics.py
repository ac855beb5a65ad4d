"""Means and their intervals: Student's t from printed tables, and the law that an interval covers the true mean."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxclf.reporting.stats import estimate, estimate_paired_difference

# 97.5 % quantiles of Student's t by degrees of freedom, as every textbook prints them.
QUANTILES = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 9: 2.262, 29: 2.045, 120: 1.980}
values = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=12)


@pytest.mark.parametrize(("freedom", "quantile"), QUANTILES.items())
def test_the_interval_is_that_of_the_printed_tables(freedom, quantile, random):
    drawn = random.normal(size=freedom + 1)
    found = estimate(list(drawn))
    assert found.n == freedom + 1
    assert found.half_width == pytest.approx(quantile * drawn.std(ddof=1) / math.sqrt(len(drawn)), rel=3e-4)
    assert (found.low, found.high) == (found.mean - found.half_width, found.mean + found.half_width)


def test_numbers_computed_by_hand():
    found = estimate([2.0, 4.0, 4.0, 6.0])
    assert (found.mean, found.n) == (4.0, 4)
    assert found.std == pytest.approx(math.sqrt(8 / 3))
    assert found.half_width == pytest.approx(3.182 * math.sqrt(8 / 3) / 2, rel=3e-4)


def test_of_one_value_nothing_but_the_mean_is_known():
    found = estimate([0.9])
    assert (found.mean, found.n, found.std, found.low, found.high) == (0.9, 1, None, None, None)


@pytest.mark.parametrize("n", [2, 3, 10])
def test_nineteen_of_twenty_intervals_hold_the_true_mean(n, random):
    draws = random.normal(3.0, 2.0, (4_000, n))
    held = np.mean([found.low <= 3.0 <= found.high for found in map(estimate, draws.tolist())])
    assert held == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / 4_000))


@given(values, st.floats(-100, 100), st.floats(0.1, 10))
def test_shift_and_scale_move_the_interval_with_the_values(drawn, shift, scale):
    before, after = estimate(drawn), estimate([shift + scale * value for value in drawn])
    assert after.low == pytest.approx(shift + scale * before.low, rel=1e-6, abs=1e-6)
    assert after.high == pytest.approx(shift + scale * before.high, rel=1e-6, abs=1e-6)


@given(values)
def test_pairs_are_matched_by_seed_and_others_do_not_count(drawn):
    a = dict(enumerate(drawn))
    b = {seed: value + seed for seed, value in reversed(a.items())}
    alone = estimate_paired_difference(a | {99: 5.0}, b | {100: 7.0})
    expected = estimate([a[seed] - b[seed] for seed in a])
    assert (alone.n, alone.mean, alone.half_width) == (expected.n, expected.mean, expected.half_width)


def test_a_difference_common_to_all_seeds_is_found_under_their_spread():
    a = {seed: 10.0 * seed for seed in range(5)}
    found = estimate_paired_difference({seed: value + 1 for seed, value in a.items()}, a)
    assert (found.mean, found.std, found.low, found.high) == (1.0, 0.0, 1.0, 1.0)
