"""L-BFGS for many problems at once, which share each evaluation."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from jaxclf.types import Array

MEMORY = 10  # pairs of steps and changes of the gradient
DECREASE = 1e-4  # fraction of the decrease that the slope promises
ROUNDING = 1e-6  # relative error of a float32 loss
SHORTEST = 1e-3  # step of a line search


class Iterate(NamedTuple):
    """Where the problems are."""

    x: Float[Array, "p d"]
    value: Float[Array, " p"]
    gradient: Float[Array, "p d"]
    steps: Float[Array, "m p d"]
    changes: Float[Array, "m p d"]
    """Changes of the gradient that belong to the steps."""
    weights: Float[Array, "m p"]
    """One over the products of steps and changes; 0 where there is no pair."""
    active: Bool[Array, " p"]
    done: Array
    """Steps that all have done."""


def minimize(
    evaluate: Callable[[Array], tuple[Array, Array]],
    start: Float[Array, "p d"],
    is_minimum: Callable[[Array], Array],
    max_steps: int,
) -> Float[Array, "p d"]:
    """Minimize functions, each from its start.

    J. Nocedal, "Updating quasi-Newton matrices with limited storage" (1980), with backtracking from unit steps: the
    coordinates should be such that the Hessian is about the identity. `optax.lbfgs` under `vmap` takes several times as
    long, since each of its line searches evaluates all functions until the last one is content.

    Args:
        evaluate: Returns the values [p] and gradients [p, d] of all functions at points [p, d].
        start: Where they start.
        is_minimum: Returns from gradients [p, d] which problems are solved [p].
        max_steps: Steps after which all end.
    """

    def step(at: Iterate) -> Iterate:
        direction = -_multiply_inverse(at)
        slope = (direction * at.gradient).sum(1)
        direction = jnp.where((slope < 0)[:, None], direction, -at.gradient)
        slope = (direction * at.gradient).sum(1)
        x, value, gradient = _search_line(evaluate, at, direction, slope)
        s, y = x - at.x, gradient - at.gradient
        product = (s * y).sum(1)
        weight = jnp.where(product > 1e-10 * (y * y).sum(1), 1 / product, 0)
        return Iterate(
            x, value, gradient,
            jnp.concatenate([at.steps[1:], s[None]]), jnp.concatenate([at.changes[1:], y[None]]),
            jnp.concatenate([at.weights[1:], weight[None]]),
            at.active & ~is_minimum(gradient), at.done + 1,
        )  # fmt: skip

    value, gradient = evaluate(start)
    empty = jnp.zeros((MEMORY, *start.shape), start.dtype)
    first = Iterate(start, value, gradient, empty, empty, empty[:, :, 0], ~is_minimum(gradient), jnp.int32(0))
    return jax.lax.while_loop(lambda at: at.active.any() & (at.done < max_steps), step, first).x


def _multiply_inverse(at: Iterate) -> Float[Array, "p d"]:
    """Return the gradient times the approximate inverse of the Hessian."""

    def subtract(q, pair):
        s, y, weight = pair
        alpha = weight * (s * q).sum(1)
        return q - alpha[:, None] * y, alpha

    def add(r, pair):
        s, y, weight, alpha = pair
        return r + (alpha - weight * (y * r).sum(1))[:, None] * s, None

    pairs = (at.steps, at.changes, at.weights)
    q, alphas = jax.lax.scan(subtract, at.gradient, pairs, reverse=True)
    s, y = at.steps[-1], at.changes[-1]
    scale = jnp.where(at.weights[-1] > 0, (s * y).sum(1) / (y * y).sum(1), 1)
    return jax.lax.scan(add, scale[:, None] * q, (*pairs, alphas))[0]


def _search_line(evaluate: Callable, at: Iterate, direction: Array, slope: Array) -> tuple[Array, Array, Array]:
    """Return a point on the line of each active problem with a lower value, its value and its gradient."""

    def halve(carry):
        length, *_ = carry
        length = jnp.where(needs_less(*carry), length / 2, length)
        return take(length)

    def take(length: Array) -> tuple[Array, Array, Array, Array]:
        x = at.x + jnp.where(at.active, length, 0)[:, None] * direction
        value, gradient = evaluate(x)
        return length, x, value, gradient

    def needs_less(length, x, value, gradient):
        limit = at.value + DECREASE * length * slope + ROUNDING * jnp.abs(at.value)
        return at.active & ~(value <= limit) & (length > SHORTEST)

    last = jax.lax.while_loop(lambda carry: needs_less(*carry).any(), halve, take(jnp.ones_like(slope)))
    return last[1:]
