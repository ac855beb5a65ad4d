"""Measures of an attribution by itself: closed forms, and the peers' mistakes."""

import jax
import numpy as np
import pytest

from jaxclf.errors import UserError
from jaxclf.saliency import Attribution, Gradient, IntegratedGradients, completeness, entropy, gini, pointing_game


def of(values, delta=None):
    """An attribution with these values."""
    values = np.asarray(values, np.float32)
    ones = np.ones(len(values))
    return Attribution(values, ones, None if delta is None else np.asarray(delta, np.float32), None, ones)


def linear(variables, images):
    return images.reshape(len(images), -1) @ variables["w"]


def ramp(n):
    return np.arange(1, n + 1)


@pytest.mark.parametrize("shape", [(12,), (2, 3, 2)])
@pytest.mark.parametrize("scale", [1, -1e-35, 1e35])
def test_gini_and_entropy_in_closed_form(shape, scale, random):
    """Of equal values, one value, and a ramp: at any place, of any sign, as large or small as floats can be."""
    n = 12
    one = np.zeros(n)
    one[5] = 1
    signs = np.where(np.arange(n) % 2, 1, -1)
    maps = np.stack([np.ones(n) * signs, one, random.permutation(ramp(n))])
    a = of((maps * scale).reshape(3, *shape))
    np.testing.assert_allclose(gini(a), [0, (n - 1) / n, (n - 1) / (3 * n)], atol=1e-6)
    shares = ramp(n) / ramp(n).sum()
    np.testing.assert_allclose(entropy(a), [np.log(n), 0, -(shares * np.log(shares)).sum()], atol=1e-6)


def test_gini_is_half_the_mean_difference_over_the_mean(random):
    values = random.normal(size=(4, 30))
    sizes = np.abs(values)
    differences = np.abs(sizes[:, :, None] - sizes[:, None, :]).mean(axis=(1, 2))
    np.testing.assert_allclose(gini(of(values)), differences / (2 * sizes.mean(axis=1)), rtol=1e-5)


def test_a_map_of_zeros_counts_as_equal_shares_and_nothing_is_changed(random):
    """A peer divides in place, and gives NaN for zeros."""
    values = random.normal(size=(3, 4, 4, 1)).astype(np.float32)
    values[1] = 0
    before = values.copy()
    a = of(values)
    assert gini(a)[1] == 0
    np.testing.assert_allclose(entropy(a)[1], np.log(16), rtol=1e-6)
    assert all(np.isfinite(measure(a)).all() for measure in (gini, entropy))
    np.testing.assert_array_equal(a.values, before)


def test_completeness_is_the_size_of_the_gap():
    """The values sum to 6, 3 and 2: the score is said to have changed by 4, 4 and 2."""
    a = of([[4, 2], [1, 2], [1, 1]], delta=[2, -1, 0])
    np.testing.assert_allclose(completeness(a), [2, 1, 0])
    np.testing.assert_allclose(completeness(a, relative=True), [0.5, 0.25, 0])


def test_no_change_at_all_is_complete_only_without_a_gap():
    a = of([[1, -1], [2, 1]], delta=[0, 3])
    np.testing.assert_array_equal(completeness(a, relative=True), [0, np.inf])


def test_what_is_complete_to_rounding_is_said_to_be_so(random):
    """A peer compares floats with ==."""
    images = random.random((3, 50)).astype(np.float32)
    a = IntegratedGradients(steps=7)(linear, {"w": random.normal(size=(50, 4)).astype(np.float32)}, images)
    assert np.any(np.sum(np.asarray(a.values, np.float64), axis=1) != np.asarray(a.score, np.float64))
    np.testing.assert_allclose(completeness(a, relative=True), 0, atol=1e-5)


def test_a_method_that_is_not_meant_to_be_complete_is_refused():
    a = Gradient()(linear, {"w": np.ones((5, 2), np.float32)}, np.ones((1, 5), np.float32))
    with pytest.raises(UserError, match="no delta"):
        completeness(a)


def test_the_largest_sum_over_channels_hits_the_mask_or_misses():
    values = np.zeros((2, 3, 3, 2))
    values[:, 0, 0] = [5, -5]  # the largest number, but not the largest pixel
    values[:, 1, 2] = [1, 2]
    mask = np.zeros((2, 3, 3), bool)
    mask[0, 1, 2] = mask[1, 0, 0] = True
    np.testing.assert_array_equal(pointing_game(of(values), mask), [1, 0])
    np.testing.assert_array_equal(pointing_game(of(values), mask[..., None].astype(np.uint8)), [1, 0])


def test_a_constant_map_points_as_well_as_chance():
    mask = np.arange(12)[None] < 3
    np.testing.assert_allclose(pointing_game(of(np.zeros((1, 12))), mask), 0.25)
    np.testing.assert_allclose(pointing_game(of(np.full((1, 3, 4, 1), -2.5)), mask.reshape(1, 3, 4)), 0.25)


def test_a_mask_of_another_size_is_named():
    with pytest.raises(UserError, match=r"a mask of shape \[1, 2, 2, 3\]"):
        pointing_game(of(np.zeros((1, 2, 2, 3))), np.ones((1, 2, 2, 3), bool))


def test_measures_become_part_of_a_program(random):
    """Under jit, and of one example what it is among others."""
    a, mask = of(random.normal(size=(4, 5, 5, 3)), delta=random.normal(size=4)), random.random((4, 5, 5)) < 0.5

    def all_of_them(a, mask):
        return completeness(a), gini(a), entropy(a), pointing_game(a, mask)

    together = jax.jit(all_of_them)(a, mask)
    for whole, alone in zip(together, all_of_them(jax.tree.map(lambda x: x[2:3], a), mask[2:3]), strict=True):
        assert whole.shape == (4,)
        np.testing.assert_allclose(whole[2:3], alone, rtol=1e-6)
