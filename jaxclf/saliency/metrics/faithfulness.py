"""Measures of an attribution against its model: does the score change where the attribution says it will?

They are about the class the attribution explains: `targets` as the method was given, None for the predicted class.
`score` and `max_rows` are as in the methods, `baseline` is what pixels that are taken away give way to. Pixels are
ranked by the sum of their values over channels, signed; equal ones in the order they come.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, Key, Num, UInt32

from jaxclf.errors import require
from jaxclf.saliency.attribution import Attribution
from jaxclf.saliency.base import Terms, ask
from jaxclf.saliency.batching import map_over
from jaxclf.saliency.compiler import compiled
from jaxclf.saliency.metrics.similarity import correlation
from jaxclf.saliency.pixels import by_pixel, importance, replaced
from jaxclf.saliency.query import Query, Score
from jaxclf.saliency.sampling import sample_keys
from jaxclf.types import Array, Variables

Images = Num[Array, "b ..."]
Targets = Int[Array, "..."] | int | None
Keys = Key[Array, "..."] | UInt32[Array, "..."]
Baseline = Num[Array, "..."] | float | None


class Curve(NamedTuple):
    """The score as more and more pixels come or go."""

    curve: Any
    """[b, points]."""
    auc: Any
    """[b] the area under it, over the share of the pixels: a mean score."""


@compiled("model", "samples", "normalize", "share", "noise", "score", "max_rows")
def infidelity(
    model: Any,
    variables: Variables,
    images: Images,
    a: Attribution,
    *,
    key: Keys,
    samples: int,
    normalize: bool = False,
    share: float = 0.5,
    noise: float | None = None,
    targets: Targets = None,
    baseline: Baseline = None,
    score: Score = "logit",
    max_rows: int | None = None,
) -> Float[Array, " b"]:
    """The mean square of what the attribution says of random changes of the image, less what the score does, [b].

    Each of the `samples` changes takes every pixel away with probability `share`, and the values of those pixels
    should add up to what the score loses. With `noise`, a standard deviation in [0, 1] units, the image loses Gaussian
    noise instead, and its product with the values should: that is the measure for gradients, which are slopes.
    `normalize` scales the values of each example to fit as well as they can; a map of zeros stays one.

    C.-K. Yeh et al., "On the (in)fidelity and sensitivity of explanations" (2019), arXiv:1901.09392.
    """
    require(samples >= 1, f"samples={samples}: expected at least 1")
    require(0 < share <= 1, f"share={share}: expected more than 0, at most 1")

    def take_pixels(query, keys, values):
        return _without(query, values, jax.vmap(lambda key: jax.random.bernoulli(key, share, values.shape[1:2]))(keys))

    change = take_pixels if noise is None else partial(_without_noise, noise=noise)

    def question(query, values):
        said, lost = _said_and_lost(query, values, samples, change)
        return jnp.mean(((_fitted(said, lost) if normalize else said) - lost) ** 2, axis=0)

    terms = Terms(score, max_rows)
    return ask(question, terms, model, variables, images, targets, key, baseline, by_pixel(a.values, images))


@compiled("model", "n", "samples", "score", "max_rows")
def sensitivity_n(
    model: Any,
    variables: Variables,
    images: Images,
    a: Attribution,
    *,
    key: Keys,
    n: int | None = None,
    samples: int = 200,
    targets: Targets = None,
    baseline: Baseline = None,
    score: Score = "logit",
    max_rows: int | None = None,
) -> Float[Array, " b"]:
    """The correlation of the values of `n` random pixels with what the score loses without them, over `samples`, [b].

    1 where the values are right, or right but for a factor; 0 where either of the two is the same for all samples, as
    of a map of zeros, or where all pixels are taken. None takes a fifth of them, at least one.

    M. Ancona et al., "Towards better understanding of gradient-based attribution methods" (2017), arXiv:1711.06104.
    """
    require(samples >= 2, f"samples={samples}: expected at least 2")
    values = by_pixel(a.values, images)
    pixels = values.shape[1]
    count = max(1, pixels // 5) if n is None else n
    require(1 <= count <= pixels, f"n={count}: expected 1 to {pixels}, the number of pixels")

    def take_pixels(query, keys, values):
        gone = jax.vmap(lambda key: jax.random.permutation(key, jnp.arange(pixels) < count))(keys)
        return _without(query, values, gone)

    def question(query, values):
        said, lost = _said_and_lost(query, values, samples, take_pixels)
        return correlation(jnp.moveaxis(said, 0, -1), jnp.moveaxis(lost, 0, -1))

    return ask(question, Terms(score, max_rows), model, variables, images, targets, key, baseline, values)


def _without(
    query: Query, values: Float[Array, "b pixels channels"], gone: Bool[Array, "b pixels"]
) -> tuple[Float[Array, " b"], Float[Array, "b ..."]]:
    """The sum of the values of the pixels that are gone, and the images without them."""
    return jnp.sum(gone * values.sum(axis=2), axis=1), replaced(query.images, query.baseline, gone)


def _without_noise(
    query: Query, keys: Key[Array, " b"], values: Float[Array, "b pixels channels"], noise: float
) -> tuple[Float[Array, " b"], Float[Array, "b ..."]]:
    """The product of noise and values, and the images less the noise."""
    drawn = noise * jax.vmap(lambda key: jax.random.normal(key, query.images.shape[1:], query.images.dtype))(keys)
    return jnp.sum(drawn.reshape(*values.shape[:2], -1) * values, axis=(1, 2)), query.images - drawn


def _fitted(said: Float[Array, "samples b 1"], lost: Float[Array, "samples b 1"]) -> Float[Array, "samples b 1"]:
    """What was said, times the factor of each example that brings it nearest to what was lost."""
    # However small the values are, their squares must not vanish.
    largest = jnp.abs(said).max(axis=0, keepdims=True)
    said = said / jnp.where(largest == 0, 1, largest)
    squares = jnp.sum(said**2, axis=0, keepdims=True)
    return said * jnp.sum(said * lost, axis=0, keepdims=True) / jnp.where(squares == 0, 1, squares)


def _said_and_lost(
    query: Query, values: Float[Array, "b pixels channels"], samples: int, change: Callable
) -> tuple[Float[Array, "samples b 1"], Float[Array, "samples b 1"]]:
    """For random changes of the image: what the values say the score loses, and what it loses."""
    query, score = query.settled()

    def sample(j):
        said, images = change(query, sample_keys(query.keys, j), values)
        return said[:, None], score - query.scores(images)

    return map_over(sample, jnp.arange(samples), query.points_at_once)


@compiled("model", "steps", "score", "max_rows")
def insertion(
    model: Any,
    variables: Variables,
    images: Images,
    a: Attribution,
    *,
    steps: int = 10,
    targets: Targets = None,
    baseline: Baseline = None,
    score: Score = "probability",
    max_rows: int | None = None,
) -> Curve:
    """The score as pixels of the image come to the baseline, the most important first: a large area is good.

    The curve has `steps` + 1 points, from the baseline to the image, with as many pixels coming at each step.

    V. Petsiuk, A. Das, K. Saenko, "RISE" (2018), arXiv:1806.07421.
    """
    terms = Terms(score, max_rows)
    return _curve(terms, steps, model, variables, images, a, targets, baseline, lambda ranks, count: ranks >= count)


@compiled("model", "steps", "score", "max_rows")
def deletion(
    model: Any,
    variables: Variables,
    images: Images,
    a: Attribution,
    *,
    steps: int = 10,
    targets: Targets = None,
    baseline: Baseline = None,
    score: Score = "probability",
    max_rows: int | None = None,
) -> Curve:
    """The score as pixels give way to the baseline, the most important first: a small area is good.

    The curve has `steps` + 1 points, from the image to the baseline, with as many pixels going at each step.

    V. Petsiuk, A. Das, K. Saenko, "RISE" (2018), arXiv:1806.07421.
    """
    terms = Terms(score, max_rows)
    return _curve(terms, steps, model, variables, images, a, targets, baseline, lambda ranks, count: ranks < count)


def _curve(
    terms: Terms,
    steps: int,
    model: Any,
    variables: Variables,
    images: Images,
    a: Attribution,
    targets: Targets,
    baseline: Baseline,
    gone: Callable,
) -> Curve:
    """The scores with those pixels gone that `gone` says, by their ranks and how many have been dealt with."""
    require(steps >= 1, f"steps={steps}: expected at least 1")
    values = by_pixel(a.values, images)
    counts = np.round(np.linspace(0, values.shape[1], steps + 1)).astype(np.int32)

    def question(query, values):
        query, _ = query.settled()
        ranks = ranks_of(values)
        scores = map_over(
            lambda count: query.scores(replaced(query.images, query.baseline, gone(ranks, count))),
            jnp.asarray(counts), query.points_at_once,
        )  # fmt: skip
        return jnp.moveaxis(scores, 0, -1)

    curve = ask(question, terms, model, variables, images, targets, baseline=baseline, given=values)
    widths = jnp.asarray(np.diff(counts) / values.shape[1], curve.dtype)
    return Curve(curve, jnp.sum(widths[None] * (curve[:, 1:] + curve[:, :-1]) / 2, axis=1))


def ranks_of(values: Float[Array, "b pixels channels"]) -> Int[Array, "b pixels"]:
    """How many pixels are more important than each."""
    order = jnp.argsort(-importance(values), axis=1, stable=True)
    return jnp.argsort(order, axis=1)
