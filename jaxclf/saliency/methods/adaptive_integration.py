"""Integration along a way, each example as finely as it needs."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from jaxclf.saliency.query import Query, Scores
from jaxclf.types import Array

FIRST = 8  # steps before the first halving: fewer can miss a kink twice
SAFETY = 1.25  # without it one error in a thousand was 2 % more than its estimate (docs/log.md)


class Integral(NamedTuple):
    """A trapezoid rule of `steps` steps, refined for the examples that are not done."""

    steps: Any  # of the finest rule so far
    mean: Any  # [b, heads, ...] gradients' mean along the way
    taken: Any  # [b] gradients taken
    done: Any  # [b, heads]


def integrate(
    query: Query, change: Scores, tolerance: float, max_steps: int
) -> tuple[Float[Array, "b heads ..."], Int[Array, " b"]]:
    """(x - x0) times the mean gradient from x0 to x, and the gradients taken for each example.

    Steps are halved until the estimated error of the values, summed over the pixels without signs, and the gap to the
    score's `change` are both at most tolerance * max(1, |change|), or `max_steps` gradients are taken. Halving makes
    the error about half as large, so what it changed is about what is left. Each head stops where it would alone.

    Places are squares of equal steps: a ReLU network with small biases bends most near a black baseline, and there
    they are dense. Done examples are not computed again: gradients are taken for a queue of (example, place).
    """
    way = (query.images - query.baseline)[:, None]
    allowed = tolerance * jnp.maximum(1, jnp.abs(change))

    def refine(integral: Integral) -> Integral:
        wanted = ~integral.done.all(axis=1)
        mean = (integral.mean + _mean_gradients(query, integral.steps, 0.5, wanted)) / 2
        error = SAFETY * total(jnp.abs(way * (mean - integral.mean)))
        gap = jnp.abs(total(way * mean) - change)
        return Integral(
            2 * integral.steps,
            jnp.where(integral.done.reshape(*change.shape, *[1] * (mean.ndim - 2)), integral.mean, mean),
            integral.taken + jnp.where(wanted, integral.steps, 0),
            integral.done | ((error <= allowed) & (gap <= allowed)),
        )

    def total(values: Float[Array, "b heads ..."]) -> Scores:
        return values.sum(axis=tuple(range(2, values.ndim)))

    b = change.shape[0]
    mean = _mean_gradients(query, FIRST, 1.0, jnp.ones(b, bool))
    first = Integral(jnp.int32(FIRST), mean, jnp.full(b, FIRST), jnp.zeros(change.shape, bool))
    last = jax.lax.while_loop(lambda i: ~i.done.all() & (2 * i.steps <= max_steps), refine, refine(first))
    return way * last.mean, last.taken


def _mean_gradients(
    query: Query, steps: Int[Array, ""] | int, shift: float, wanted: Bool[Array, " b"]
) -> Float[Array, "b heads ..."]:
    """The mean gradient from baseline to image of the wanted examples, from one place in each of equal steps.

    With s = (j + shift) / steps for j < steps, places are s squared and weights 2 s / steps; at the end, half of it.
    """
    rows, order = query.max_rows, jnp.argsort(~wanted)
    queue = wanted.sum() * steps

    def add(state):
        begin, sums = state
        place_in_queue = begin + jnp.arange(rows)
        example = order[jnp.minimum(place_in_queue // steps, wanted.size - 1)]
        s = (place_in_queue % steps + shift) / steps
        weight = jnp.where(place_in_queue < queue, 2 * s / steps, 0) * jnp.where(s == 1, 0.5, 1)
        gradients = _gradients_at(query, example, s * s)
        weight = weight.reshape(-1, *[1] * (gradients.ndim - 1)).astype(gradients.dtype)
        weighted = jnp.where(weight > 0, weight * gradients, 0)
        return begin + rows, sums.at[example].add(weighted)

    shape = jax.eval_shape(query.gradients, query.images)
    zeros = jnp.zeros(shape.shape, shape.dtype)
    return jax.lax.while_loop(lambda state: state[0] < queue, add, (jnp.int32(0), zeros))[1]


def _gradients_at(query: Query, example: Int[Array, " r"], place: Float[Array, " r"]) -> Float[Array, "r heads ..."]:
    """Gradients on the ways of some examples, each at its place between baseline and image."""
    images, baseline = query.images[example], query.baseline[example]
    place = place.reshape(-1, *[1] * (images.ndim - 1)).astype(images.dtype)
    targets = None if query.targets is None else query.targets[example]
    of_rows = query.replace(images=images, targets=targets, baseline=baseline)
    return of_rows.gradients(baseline + place * (images - baseline))
