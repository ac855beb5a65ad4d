"""Gradients integrated along a way that the model leads."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor

import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxclf.errors import require
from jaxclf.saliency.attribution import Attribution
from jaxclf.saliency.base import BaseMethod
from jaxclf.saliency.batching import map_over
from jaxclf.saliency.query import Query, complete
from jaxclf.types import Array


@dataclass(frozen=True)
class GuidedIntegratedGradients(BaseMethod):
    """Integrated gradients along a way that first changes the pixels of small gradient, and so avoids steep places.

    No pixel leaves the straight line by more than `max_dist`: 0 is the straight line, 1 any way without turning back.
    Each example has its own way, and so has each class of `all_classes`, which share no passes. Where two gradients are
    equal to rounding, rounding decides which pixel goes first.

    A. Kapishnikov et al., "Guided integrated gradients" (2021), arXiv:2106.09788.
    """

    steps: int = 200
    """Gradients an example."""
    fraction: float = 0.25
    """Share of all pixels, those of smallest gradient, that are changed together."""
    max_dist: float = 0.02
    """How far a pixel may be before or behind the straight line, as a share of its way."""

    def __post_init__(self):
        require(self.steps >= 1, f"steps={self.steps}: expected at least 1")
        require(0 <= self.fraction <= 1, f"fraction={self.fraction}: expected 0 to 1")
        require(0 <= self.max_dist <= 1, f"max_dist={self.max_dist}: expected 0 to 1")

    def explain(self, query: Query) -> Attribution:
        """As many gradients as steps, one after the other, and the scores at both ends."""
        query, score = query.settled()
        b, heads = score.shape
        targets = jnp.arange(heads)[:, None] if query.targets is None else query.targets[None]
        single = query.replace(every_class=False)
        targets = jnp.broadcast_to(targets, (heads, b))
        values = map_over(lambda one: self._integral(single.replace(targets=one)), targets, query.points_at_once)
        evaluations = heads * self.steps + 2
        return complete(query, jnp.moveaxis(values, 0, 1), score, query.scores(query.baseline), evaluations)

    def _integral(self, query: Query) -> Float[Array, "b ..."]:
        way = query.images - query.baseline

        def step(carry, target):
            done, values = carry
            gradients = query.gradients(query.baseline + done * way)[:, 0]
            now = jax.vmap(self._move, (0, 0, 0, None))(done, gradients, way, target)
            return (now, values + (now - done) * way * gradients), None

        targets = jnp.arange(1, self.steps + 1, dtype=way.dtype) / self.steps
        return jax.lax.scan(step, (jnp.zeros_like(way), jnp.zeros_like(way)), targets)[0][1]

    def _move(
        self, done: Float[Array, ...], gradient: Float[Array, ...], way: Float[Array, ...], target: Float[Array, ""]
    ) -> Float[Array, ...]:
        """How much of its way each pixel of an example has done when all of them together have done `target`."""
        way = jnp.abs(way)
        shares = way / jnp.where(way.sum() > 0, way.sum(), 1)
        low, high = jnp.maximum(target - self.max_dist, 0), jnp.minimum(target + self.max_dist, 1)
        done = jnp.maximum(done, low)
        free = (done < high) & (shares > 0)
        size = jnp.where(free, jnp.abs(gradient), jnp.inf)
        room, gap = jnp.where(free, shares * (high - done), 0), target - (shares * done).sum()
        # Which pixels move is no matter of derivatives, and a loop of unknown length has none in reverse.
        before, limit = self._limits(*jax.lax.stop_gradient((size, room, gap)))
        first, last = free & (size <= before), free & (before < size) & (size <= limit)
        gap, room = gap - jnp.where(first, room, 0).sum(), jnp.where(last, room, 0).sum()
        part = jnp.maximum(gap, 0) / jnp.where(room > 0, room, 1)
        return jnp.where(first | (last & (part >= 1)), high, jnp.where(last, done + part * (high - done), done))

    def _limits(
        self, size: Float[Array, ...], room: Float[Array, ...], gap: Float[Array, ""]
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """The gradients up to which pixels go to their ends, and up to which the next ones close the gap."""
        ordered = jnp.sort(size, axis=None)
        few = floor(self.fraction * (size.size - 1))

        def more(limits):
            # Finite: at infinity all are chosen, and a limit that is no number chooses none, for ever.
            return jnp.isfinite(limits[1]) & (jnp.where(size <= limits[1], room, 0).sum() < gap)

        def move(limits):
            # As many more, and all that equal the last of them.
            gone = (size <= limits[1]).sum()
            return limits[1], jnp.where(gone < size.size, ordered[jnp.minimum(gone + few, size.size - 1)], jnp.inf)

        return jax.lax.while_loop(more, move, (jnp.full_like(gap, -1), ordered[few]))
