"""Sums over the positions of images, as loops that XLA's CPU backend runs fast."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Float

from jaxclf.types import Array
from jaxclf.xla.options import has_fast_convolutions

CHUNK_SIZE = 2**16
"""Number of elements that are added to the sums at a time; with their sums they fit into a cache."""
Terms = Callable[..., tuple[Float[Array, "g r n c"], ...]]


def sum_positions(terms: Terms, *arrays: Float[Array, "g r n c"]) -> list[Float[Array, "g 1 1 c"]]:
    """Sum arrays that are computed element by element over rows and positions.

    Args:
        terms: A function of parts of the arrays, [g, r, m, c], that returns the arrays to sum.
        arrays: Arrays [groups, rows, positions, channels].

    Returns:
        The sum over the axes of rows and positions of each array that `terms` returns.
    """
    # XLA's CPU backend writes what it sums to memory, and reads it again in windows: a loop takes 0.15 to 0.4 times as
    # long (docs/log.md). It is over positions, since rows may be on several devices.
    groups, rows, positions, channels = arrays[0].shape
    size = max(CHUNK_SIZE // (groups * rows * channels), 1)
    steps = positions // size if has_fast_convolutions() else 0
    if steps < 2:
        return _sum_rows(terms(*arrays))

    def compute(first: int | Array, count: int) -> list[Array]:
        return list(terms(*(lax.dynamic_slice_in_dim(x, first, count, axis=2) for x in arrays)))

    def add(step: Array, totals: list[Array]) -> list[Array]:
        return jax.tree.map(jnp.add, totals, compute(step * size, size))

    sums = _sum_rows(lax.fori_loop(1, steps, add, compute(0, size)))
    rest = positions - steps * size
    return jax.tree.map(jnp.add, sums, _sum_rows(compute(steps * size, rest))) if rest else sums


def _sum_rows(arrays: Sequence[Float[Array, "g r m c"]]) -> list[Float[Array, "g 1 1 c"]]:
    return [x.sum((1, 2), keepdims=True) for x in arrays]
