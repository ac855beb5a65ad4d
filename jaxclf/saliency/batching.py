"""Loops over groups of points inside one compiled program, so that memory does not grow with their number."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Bool, PyTree, Shaped

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


def fold_until(
    function: Callable[[PyTree], Result],
    combine: Callable[[Result, Result], Result],
    is_done: Callable[[Result], Bool[Array, "b targets"]],
    count: int,
    block: int,
    group_size: int,
) -> Result:
    """Apply a function to points 0, 1, ... and combine the results, for each example and target until it is done.

    Blocks do not depend on the batch, so each example stops where it would alone. The others go on, and what is
    computed for it then is left out. There is no reverse-mode derivative.

    Args:
        function: Maps points [n] to a tree of arrays [b, targets, ...].
        combine: Combines two results; zeros must be its neutral element.
        is_done: Returns True for the examples and targets that need no more points.
        count: The largest number of points.
        block: The number of points after which `is_done` is asked.
        group_size: The number of points that `function` takes at a time.
    """

    def advance(state, size):
        begin, result, done = state
        longer = combine(result, fold(function, combine, begin + jnp.arange(size), group_size))
        result = jax.tree.map(lambda old, new: jnp.where(_append_axes(done, new), old, new), result, longer)
        return begin + size, result, done | is_done(result)

    block = min(block, count)
    result = fold(function, combine, jnp.arange(block), group_size)
    state = jnp.int32(block), result, is_done(result)
    state = jax.lax.while_loop(
        lambda state: (state[0] + block <= count) & ~state[2].all(), partial(advance, size=block), state
    )
    if count % block:
        state = jax.lax.cond(state[2].all(), lambda state: state, partial(advance, size=count % block), state)
    return state[1]


def _append_axes(done: Bool[Array, "b targets"], other: Shaped[Array, "b targets ..."]) -> Bool[Array, "b targets ..."]:
    return done.reshape(*done.shape, *[1] * (other.ndim - 2))


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
