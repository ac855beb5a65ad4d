"""Many rows, a few at a time: loops inside one compiled program, so memory does not grow with the number of rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def map_batch(function: Callable[[Any], Any], examples: Any, size: int) -> Any:
    """`function` of a tree of arrays [b, ...], at most `size` examples at a time; its outputs are [b, ...] too."""
    b = jax.tree.leaves(examples)[0].shape[0]
    parts = b // size
    if b <= size:
        return function(examples)
    # Every parts-th example, so that each device has examples of every part and none have to move.
    whole = jax.tree.map(lambda x: x[: parts * size].reshape(size, parts, *x.shape[1:]).swapaxes(0, 1), examples)
    done = jax.lax.map(function, whole)
    done = jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(parts * size, *x.shape[2:]), done)
    if parts * size == b:
        return done
    rest = function(jax.tree.map(lambda x: x[parts * size :], examples))
    return jax.tree.map(lambda x, y: jnp.concatenate([x, y]), done, rest)


def fold(function: Callable[[Any], Any], combine: Callable[[Any, Any], Any], points: Any, size: int) -> Any:
    """What `combine` makes of `function` of at most `size` points at a time; `points` is a tree of arrays [n, ...].

    Zeros must be the neutral element of `combine`.
    """
    n = jax.tree.leaves(points)[0].shape[0]
    groups = n // size
    if n <= size:
        return function(points)
    whole = jax.tree.map(lambda x: x[: groups * size].reshape(groups, size, *x.shape[1:]), points)
    shapes = jax.eval_shape(function, jax.tree.map(lambda x: x[0], whole))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    done, _ = jax.lax.scan(lambda carry, group: (combine(carry, function(group)), None), zeros, whole)
    if groups * size == n:
        return done
    return combine(done, function(jax.tree.map(lambda x: x[groups * size :], points)))


def sum_over(function: Callable[[Any], Any], points: Any, size: int) -> Any:
    """The sum of `function` over points, a tree of arrays [n, ...], at most `size` of them at once."""

    def of_group(group):
        return jax.tree.map(lambda x: x.sum(axis=0), jax.vmap(function)(group))

    return fold(of_group, lambda a, b: jax.tree.map(jnp.add, a, b), points, size)


def map_over(function: Callable[[Any], Any], points: Any, size: int) -> Any:
    """`function` of every point of a tree of arrays [n, ...], at most `size` of them at once: outputs are [n, ...]."""
    n = jax.tree.leaves(points)[0].shape[0]
    return jax.vmap(function)(points) if n <= size else jax.lax.map(function, points, batch_size=size)
