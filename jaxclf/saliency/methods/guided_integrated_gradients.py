"""Integrated gradients along a path that avoids large gradients."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from jaxclf.errors import require
from jaxclf.saliency.base import BaseMethod
from jaxclf.saliency.batching import map_over
from jaxclf.saliency.query import Attribution, Query, make_complete_attribution
from jaxclf.types import Array


@dataclass(frozen=True)
class GuidedIntegratedGradients(BaseMethod):
    """Integrated gradients along a path that changes the pixels with the smallest gradients first.

    It avoids regions of large gradients, which add noise to integrated gradients. The values sum to the change of the
    score from the baseline, up to `delta`. No pixel deviates from the straight line by more than `max_dist`: 0 is the
    straight line, 1 allows any monotonic path. Each example has its own path, and so has each class of `all_classes`,
    so classes share no passes. Where gradients are equal up to rounding, rounding decides which pixel changes first.

    A. Kapishnikov et al., "Guided integrated gradients: an adaptive path method for removing noise" (2021),
    arXiv:2106.09788.
    """

    steps: int = 200
    """Number of gradients per example."""
    fraction: float = 0.25
    """Fraction of the pixels, those with the smallest gradients, that change together."""
    max_dist: float = 0.02
    """Largest deviation of a pixel from the straight line, as a fraction of its total change."""

    def __post_init__(self):
        require(self.steps >= 1, f"steps={self.steps}: expected at least 1")
        require(0 <= self.fraction <= 1, f"fraction={self.fraction}: expected 0 to 1")
        require(0 <= self.max_dist <= 1, f"max_dist={self.max_dist}: expected 0 to 1")

    def explain(self, query: Query) -> Attribution:
        """Explain a query with one gradient per step, computed in sequence, and the scores at both ends of the path."""
        query, score = query.resolve_targets()
        b, classes = score.shape
        targets = jnp.arange(classes)[:, None] if query.targets is None else query.targets[None]
        single = query.replace(every_class=False)
        targets = jnp.broadcast_to(targets, (classes, b))
        values = map_over(lambda one: self._integrate(single.replace(targets=one)), targets, query.points_per_call)
        evaluations = classes * self.steps + 2
        return make_complete_attribution(
            query, jnp.moveaxis(values, 0, 1), score, query.compute_scores(query.baseline), evaluations
        )

    def _integrate(self, query: Query) -> Float[Array, "b ..."]:
        way = query.images - query.baseline

        def step(carry, target):
            done, values = carry
            gradients = query.compute_gradients(query.baseline + done * way)[:, 0]
            now = jax.vmap(self._move, (0, 0, 0, None))(done, gradients, way, target)
            return (now, values + (now - done) * way * gradients), None

        targets = jnp.arange(1, self.steps + 1, dtype=way.dtype) / self.steps
        return jax.lax.scan(step, (jnp.zeros_like(way), jnp.zeros_like(way)), targets)[0][1]

    def _move(
        self, done: Float[Array, ...], gradient: Float[Array, ...], way: Float[Array, ...], target: Float[Array, ""]
    ) -> Float[Array, ...]:
        """Advance an example until its pixels together have made the fraction `target` of their change.

        Returns the fraction that each pixel has made.
        """
        way = jnp.abs(way)
        shares = way / jnp.where(way.sum() > 0, way.sum(), 1)
        low, high = jnp.maximum(target - self.max_dist, 0), jnp.minimum(target + self.max_dist, 1)
        done = jnp.maximum(done, low)
        free = (done < high) & (shares > 0)
        size = jnp.where(free, jnp.abs(gradient), jnp.inf)
        room, gap = jnp.where(free, shares * (high - done), 0), target - (shares * done).sum()
        # The choice of pixels is piecewise constant, and a while loop has no reverse-mode derivative.
        before, limit = self._find_limits(*jax.lax.stop_gradient((size, room, gap)))
        first, last = free & (size <= before), free & (before < size) & (size <= limit)
        gap, room = gap - jnp.where(first, room, 0).sum(), jnp.where(last, room, 0).sum()
        part = jnp.maximum(gap, 0) / jnp.where(room > 0, room, 1)
        return jnp.where(first | (last & (part >= 1)), high, jnp.where(last, done + part * (high - done), done))

    def _find_limits(
        self, size: Float[Array, ...], room: Float[Array, ...], gap: Float[Array, ""]
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """Return two gradient sizes: pixels up to the first advance to `high`, those up to the second in part."""
        size, room = size.ravel(), room.ravel()
        few = floor(self.fraction * (size.size - 1))

        def is_short(limits):
            # At infinity all pixels are chosen, and a NaN would choose none, so the loop would not end.
            return jnp.isfinite(limits[1]) & (jnp.where(size <= limits[1], room, 0).sum() < gap)

        def extend(limits):
            # The next pixels, and all those with a gradient equal to the last of them.
            gone = (size <= limits[1]).sum()
            place = jnp.minimum(gone + few, size.size - 1)
            return limits[1], jnp.where(gone < size.size, find_smallest(size, place), jnp.inf)

        return jax.lax.while_loop(is_short, extend, (jnp.full_like(gap, -1), find_smallest(size, few)))


def find_smallest(values: Float[Array, " n"], place: int | Int[Array, ""]) -> Float[Array, ""]:
    """Return the value at a place of the sorted array, counted from 0, of values that are not negative.

    Their bits have the same order as integers, so the bits of the result are found one by one, from the first. It
    takes a fraction of the time of sorting on CPUs.
    """
    integer = jnp.dtype(f"uint{8 * values.dtype.itemsize}")
    bits = jax.lax.bitcast_convert_type(values, integer)
    count = 8 * integer.itemsize - 1

    def add_bit(i, found):
        larger = found | (jnp.ones((), integer) << (count - 1 - i).astype(integer))
        return jnp.where((bits < larger).sum() <= place, larger, found)

    found = jax.lax.fori_loop(0, count, add_bit, jnp.zeros((), integer))
    return jax.lax.bitcast_convert_type(found, values.dtype)
