"""Loops over groups of points inside one compiled program, so that memory does not grow with their number."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import PyTree, Shaped

from jaxclf.types import Array

Result = TypeVar("Result")


def fold(
    function: Callable[[PyTree], Result],
    combine: Callable[[Result, Result], Result],
    points: PyTree[Array],
    group_size: int,
) -> Result:
    """Apply a function to groups of points, a tree of arrays [n, ...], and combine the results.

    Zeros must be the neutral element of `combine`.
    """
    n = jax.tree.leaves(points)[0].shape[0]
    groups = n // group_size
    if n <= group_size:
        return function(points)
    whole = jax.tree.map(lambda x: x[: groups * group_size].reshape(groups, group_size, *x.shape[1:]), points)
    shapes = jax.eval_shape(function, jax.tree.map(lambda x: x[0], whole))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    done, _ = jax.lax.scan(lambda carry, group: (combine(carry, function(group)), None), zeros, whole)
    if groups * group_size == n:
        return done
    return combine(done, function(jax.tree.map(lambda x: x[groups * group_size :], points)))


def sum_over(function: Callable[[PyTree], Result], points: PyTree[Array], group_size: int) -> Result:
    """Sum a function of one point over a tree of arrays [n, ...], at most `group_size` points at a time."""

    def sum_group(group):
        return jax.tree.map(_add_up, jax.vmap(function)(group))

    return fold(sum_group, lambda a, b: jax.tree.map(jnp.add, a, b), points, group_size)


def _add_up(terms: Shaped[Array, "n ..."]) -> Shaped[Array, ...]:
    """Return the sum over the first axis, by additions of halves."""
    # XLA's CPU backend of jax 0.10 takes seven times as long for the sum along an axis (docs/log.md).
    n = terms.shape[0]
    if n == 1:
        return terms[0]
    total = _add_up(terms[: n // 2] + terms[n // 2 : n - n % 2])
    return total + terms[-1] if n % 2 else total


def map_over(function: Callable[[PyTree], Result], points: PyTree[Array], group_size: int) -> Result:
    """Map a function of one point over a tree of arrays [n, ...], at most `group_size` points at a time."""
    n = jax.tree.leaves(points)[0].shape[0]
    return jax.vmap(function)(points) if n <= group_size else jax.lax.map(function, points, batch_size=group_size)
