"""Adaptive integration of gradients along a straight path, to a tolerance per example."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from jaxclf.saliency.query import Query, Scores
from jaxclf.types import Array

FIRST = 8  # steps of the first rule: with fewer, two rules in a row can miss the same kink
SAFETY = 1.25  # factor of the error estimate: without it one error in a thousand was 2 % larger (docs/log.md)


class Integral(NamedTuple):
    """The state of an integration, whose steps are halved for the examples that have not converged."""

    steps: Array
    """The number of steps of the finest rule so far."""
    mean: Array
    """[b, targets, ...] the mean gradient along the path."""
    taken: Array
    """[b] the number of gradients computed."""
    done: Array
    """[b, targets] True for integrals that have converged."""


def integrate(
    query: Query, change: Scores, tolerance: float, max_steps: int
) -> tuple[Float[Array, "b targets ..."], Int[Array, " b"]]:
    """Compute integrated gradients by a trapezoid rule that is refined until it converges.

    Steps are halved until the estimated error of the values (the sum of absolute values over the pixels) and the
    convergence delta are both at most tolerance * max(1, |change|), or `max_steps` gradients have been computed.

    Args:
        query: Examples with resolved targets.
        change: The scores at the images minus those at the baseline.
        tolerance: The allowed error, relative to a change of more than 1.
        max_steps: The largest number of gradients per example.

    Returns:
        The values, and the number of gradients computed for each example.
    """
    way = (query.images - query.baseline)[:, None]
    allowed = tolerance * jnp.maximum(1, jnp.abs(change))

    def refine(integral: Integral) -> Integral:
        wanted = ~jnp.all(integral.done, axis=1)
        # Nodes of the finer rule are those of the coarser one and the midpoints between them.
        mean = (integral.mean + _mean_gradients(query, integral.steps, 0.5, wanted)) / 2
        # Halving the steps about halves the error, so the change is about as large as the remaining error.
        error = SAFETY * total(jnp.abs(way * (mean - integral.mean)))
        gap = jnp.abs(total(way * mean) - change)
        return Integral(
            2 * integral.steps,
            # A target that has converged keeps its value, so each class stops where it would alone.
            jnp.where(integral.done.reshape(*change.shape, *[1] * (mean.ndim - 2)), integral.mean, mean),
            integral.taken + jnp.where(wanted, integral.steps, 0),
            integral.done | ((error <= allowed) & (gap <= allowed)),
        )

    def total(values: Float[Array, "b targets ..."]) -> Scores:
        return values.sum(axis=tuple(range(2, values.ndim)))

    b = change.shape[0]
    mean = _mean_gradients(query, FIRST, 1.0, jnp.ones(b, bool))
    first = Integral(jnp.int32(FIRST), mean, jnp.full(b, FIRST), jnp.zeros(change.shape, bool))
    last = jax.lax.while_loop(lambda i: ~i.done.all() & (2 * i.steps <= max_steps), refine, refine(first))
    return way * last.mean, last.taken


def _mean_gradients(
    query: Query, steps: Int[Array, ""] | int, shift: float, wanted: Bool[Array, " b"]
) -> Float[Array, "b targets ..."]:
    """Return the weighted sum of gradients at one node per step, for the wanted examples.

    With s = (j + shift) / steps for j < steps, nodes are at s squared with weights 2 s / steps, half of it at s = 1.
    """
    # Substituting s squared makes nodes dense near the baseline, where a ReLU network with small biases has most of
    # its kinks. Gradients are computed for a queue of (example, node), so examples that have converged cost nothing.
    rows, order = query.max_rows, jnp.argsort(~wanted)
    queue = wanted.sum() * steps

    def add(state):
        begin, sums = state
        position = begin + jnp.arange(rows)
        example = order[jnp.minimum(position // steps, wanted.size - 1)]
        s = (position % steps + shift) / steps
        weight = jnp.where(position < queue, 2 * s / steps, 0) * jnp.where(s == 1, 0.5, 1)
        gradients = _compute_gradients_at(query, example, s * s)
        weight = weight.reshape(-1, *[1] * (gradients.ndim - 1)).astype(gradients.dtype)
        weighted = jnp.where(weight > 0, weight * gradients, 0)
        return begin + rows, sums.at[example].add(weighted)

    shape = jax.eval_shape(query.compute_gradients, query.images)
    zeros = jnp.zeros(shape.shape, shape.dtype)
    return jax.lax.while_loop(lambda state: state[0] < queue, add, (jnp.int32(0), zeros))[1]


def _compute_gradients_at(
    query: Query, example: Int[Array, " r"], place: Float[Array, " r"]
) -> Float[Array, "r targets ..."]:
    """Return the gradients of some examples, each at a place in [0, 1] between its baseline and its image."""
    images, baseline = query.images[example], query.baseline[example]
    place = place.reshape(-1, *[1] * (images.ndim - 1)).astype(images.dtype)
    targets = None if query.targets is None else query.targets[example]
    rows = query.replace(images=images, targets=targets, baseline=baseline)
    return rows.compute_gradients(baseline + place * (images - baseline))
