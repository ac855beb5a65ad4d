"""Loops over points: sums of any number of them, and folds in which each example stops by itself."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxclf.saliency.batching import fold_until, sum_over


@pytest.mark.parametrize("group_size", [1, 3, 7, 64])
@pytest.mark.parametrize("n", [1, 2, 7, 12])
def test_sums_of_groups_of_any_size(n, group_size, random):
    points = random.integers(-9, 10, (n, 2)).astype(np.float32)
    sums = sum_over(lambda point: {"x": point, "twice": 2 * point}, jnp.asarray(points), group_size)
    np.testing.assert_array_equal(sums["x"], points.sum(axis=0))
    np.testing.assert_array_equal(sums["twice"], 2 * points.sum(axis=0))


@pytest.mark.parametrize("group_size", [1, 2, 64])
@pytest.mark.parametrize("count", [2, 10, 11, 12])
def test_each_example_and_target_stops_by_itself_after_a_whole_block(count, group_size):
    enough = jnp.array([[0, 3], [4, 99]])

    def number(points):
        return jnp.full((2, 2), points.shape[0]), jnp.full((2, 2, 5), points.sum())

    taken, sums = fold_until(
        number, lambda a, b: (a[0] + b[0], a[1] + b[1]), lambda a: a[0] >= enough, count, 3, group_size
    )
    expected = np.minimum([[3, 3], [6, 99]], count)
    np.testing.assert_array_equal(taken, expected)
    np.testing.assert_array_equal(sums[..., 0], expected * (expected - 1) // 2)
    assert sums.shape == (2, 2, 5)
