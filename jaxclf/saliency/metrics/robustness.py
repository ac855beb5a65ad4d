"""Measures of a method: how much its maps change where the image hardly does.

`targets`, `key` and `baseline` are as the method takes them; the class is that of the clean image. What the method
draws itself it draws alike each time. A method about all classes is measured for each, and [b] becomes [b, classes].
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float, Key

from jaxclf.errors import require
from jaxclf.saliency.base import Method, ask
from jaxclf.saliency.batching import fold
from jaxclf.saliency.compiler import compiled
from jaxclf.saliency.metrics.faithfulness import Baseline, Images, Keys, Targets
from jaxclf.saliency.metrics.similarity import norm, relative_distance
from jaxclf.saliency.query import Query
from jaxclf.saliency.sampling import sample_keys
from jaxclf.types import Array, Variables
from jaxclf.xla.convolutions import fast_convolutions

OF_MEASURE = -1
"""Folded into a key for what a measure draws: examples, and the samples of a method, are numbered from 0."""


@compiled("method", "model", "radius", "samples")
def sensitivity_max(
    method: Method,
    model: Any,
    variables: Variables,
    images: Images,
    *,
    key: Keys,
    radius: float = 0.02,
    samples: int = 10,
    targets: Targets = None,
    baseline: Baseline = None,
) -> Float[Array, "b ..."]:
    """The largest change of the map, relative to its length, over `samples` random images nearby, [b].

    Every number of the image changes by at most `radius`, in [0, 1] units. For a map of zeros it is the change itself.

    C.-K. Yeh et al., "On the (in)fidelity and sensitivity of explanations" (2019), arXiv:1901.09392.
    """
    _check(radius, samples)

    def question(query, _):
        return _largest(method, query, radius, samples, lambda values, there, step: relative_distance(values, there))

    return ask(question, method, model, variables, images, targets, key, baseline)


@compiled("method", "model", "radius", "samples", "exact", "iterations")
def local_lipschitz(
    method: Method,
    model: Any,
    variables: Variables,
    images: Images,
    *,
    key: Keys,
    radius: float = 0.02,
    samples: int = 10,
    exact: bool = False,
    iterations: int = 50,
    targets: Targets = None,
    baseline: Baseline = None,
) -> Float[Array, "b ..."]:
    """How many times more the map changes than the image, at most, [b].

    Over `samples` random images, each number within `radius` of its own, in [0, 1] units: a lower bound. Or, with
    `exact`, over all directions at the image itself: the spectral norm of the map's derivative, by so many `iterations`
    of power iteration. For `Gradient` that derivative is the Hessian of the score. It needs a method about one class.

    D. Alvarez-Melis, T. Jaakkola, "On the robustness of interpretability methods" (2018), arXiv:1806.08049.
    """
    _check(radius, samples)
    require(iterations >= 1, f"iterations={iterations}: expected at least 1")
    require(not (exact and method.every_class), f"{method}: the exact constant is of one class; give a target")

    def question(query, _):
        if exact:
            return _spectral_norm(method, query, iterations)
        return _largest(method, query, radius, samples, lambda values, there, step: norm(values - there) / norm(step))

    return ask(question, method, model, variables, images, targets, key, baseline)


def _check(radius: float, samples: int) -> None:
    require(radius > 0, f"radius={radius}: expected more than 0")
    require(samples >= 1, f"samples={samples}: expected at least 1")


def _largest(
    method: Method, query: Query, radius: float, samples: int, measure: Callable[..., Float[Array, "b heads"]]
) -> Float[Array, "b heads"]:
    """The largest of what is measured of the values nearby, those at the images, and the step [b, 1, ...] between."""
    query, _ = query.settled()
    there = method.explain(query).values
    at_once = query.points_at_once
    few = query.replace(max_rows=max(query.max_rows // at_once, query.images.shape[0]))
    own = _own_keys(query)

    def sample(j):
        draw = partial(jax.random.uniform, shape=query.images.shape[1:], minval=-radius, maxval=radius)
        step = jax.vmap(draw)(sample_keys(own, j))
        return measure(method.explain(few.replace(images=query.images + step)).values, there, step[:, None])

    return fold(lambda js: jax.vmap(sample)(js).max(axis=0), jnp.maximum, jnp.arange(samples), at_once)


def _own_keys(query: Query) -> Key[Array, " b"]:
    return sample_keys(query.keys, jnp.int32(OF_MEASURE))


def _spectral_norm(method: Method, query: Query, iterations: int) -> Float[Array, "b 1"]:
    """The largest singular value of the derivative of the values by the images, from random directions."""
    query, _ = query.settled()
    start = jax.vmap(lambda key: jax.random.normal(key, query.images.shape[1:], query.images.dtype))(_own_keys(query))

    def run(images, direction):
        there, pull = jax.vjp(lambda images: method.explain(query.replace(images=images)).values, images)
        # Not jvp, which methods with a backward pass of their own do not have.
        push = jax.linear_transpose(lambda values: pull(values)[0], there)

        def step(direction, _):
            (direction,) = pull(push(_unit(direction))[0])
            return direction, None

        direction, _ = jax.lax.scan(step, direction, length=iterations)
        return norm(push(_unit(direction))[0])

    return fast_convolutions(run)(query.images, start)


def _unit(x: Float[Array, "b ..."]) -> Float[Array, "b ..."]:
    """Each example with a length of 1; zeros stay."""
    length = norm(x[:, None]).reshape(-1, *[1] * (x.ndim - 1))
    return x / jnp.where(length == 0, 1, length)
