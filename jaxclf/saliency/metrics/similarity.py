"""How alike two maps are: distance, correlation, structural similarity; maps of zeros never give NaN."""

from __future__ import annotations

from math import prod

import jax.numpy as jnp
from jax import lax
from jax.scipy.stats import rankdata
from jaxtyping import Float

from jaxclf.types import Array

CONSTANT = 1e-6
"""What varies by less, relative to its size, varies by rounding only."""


def norm(x: Float[Array, "b heads ..."]) -> Float[Array, "b heads"]:
    """The Euclidean length of each map; squares of small numbers do not vanish."""
    flat = x.reshape(*x.shape[:2], -1)
    largest = jnp.abs(flat).max(axis=-1)
    scaled = flat / jnp.where(largest == 0, 1, largest)[..., None]
    return largest * jnp.sqrt(jnp.sum(scaled**2, axis=-1))


def relative_distance(x: Float[Array, "b heads ..."], to: Float[Array, "b heads ..."]) -> Float[Array, "b heads"]:
    """The distance of x as a share of the length of what it is compared to; of a map of zeros, the distance itself."""
    length = norm(to)
    return norm(x - to) / jnp.where(length == 0, 1, length)


def correlation(x: Float[Array, "*rest n"], y: Float[Array, "*rest n"]) -> Float[Array, "*rest"]:
    """Pearson's, along the last axis; 0 where one of them is constant."""
    return jnp.clip(jnp.sum(_standard(x) * _standard(y), axis=-1), -1, 1)


def _standard(x: Float[Array, "*rest n"]) -> Float[Array, "*rest n"]:
    """With a mean of 0 and a length of 1, or 0 where it is constant."""
    size = jnp.abs(x).max(axis=-1, keepdims=True)
    x = x / jnp.where(size == 0, 1, size)
    x = x - x.mean(axis=-1, keepdims=True)
    largest = jnp.abs(x).max(axis=-1, keepdims=True)
    x = jnp.where(largest <= CONSTANT, 0, x / jnp.where(largest == 0, 1, largest))
    length = jnp.sqrt(jnp.sum(x**2, axis=-1, keepdims=True))
    return x / jnp.where(length == 0, 1, length)


def rank_correlation(x: Float[Array, "*rest n"], y: Float[Array, "*rest n"]) -> Float[Array, "*rest"]:
    """Spearman's, along the last axis: equal values share their mean rank; 0 where one of them is constant."""
    return correlation(rankdata(x, axis=-1), rankdata(y, axis=-1))


def structural_similarity(
    x: Float[Array, "b heads *space"], y: Float[Array, "b heads *space"]
) -> Float[Array, "b heads"]:
    """The mean over all square windows of seven pixels a side, or of as many as there are; 1 for equal maps.

    Each map is divided by its largest absolute value first, so that values span [-1, 1].

    Z. Wang et al., "Image quality assessment" (2004), with equal weights and unbiased variances.
    """
    axes = tuple(range(2, x.ndim))
    x, y = _spanning(x, axes), _spanning(y, axes)
    sides = [min(7, size - 1 + size % 2) for size in x.shape[2:]]
    window, count = (1, 1, *sides), prod(sides)

    def mean(z):
        return lax.reduce_window(z, 0.0, lax.add, window, (1,) * z.ndim, "VALID") / count

    unbiased = count / max(count - 1, 1)
    x_mean, y_mean = mean(x), mean(y)
    x_variance, y_variance = unbiased * (mean(x * x) - x_mean**2), unbiased * (mean(y * y) - y_mean**2)
    covariance = unbiased * (mean(x * y) - x_mean * y_mean)
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    return jnp.mean(
        (2 * x_mean * y_mean + c1) * (2 * covariance + c2)
        / ((x_mean**2 + y_mean**2 + c1) * (x_variance + y_variance + c2)),
        axis=axes,
    )  # fmt: skip


def _spanning(x: Float[Array, "b heads *space"], axes: tuple[int, ...]) -> Float[Array, "b heads *space"]:
    largest = jnp.abs(x).max(axis=axes, keepdims=True)
    return x / jnp.where(largest == 0, 1, largest)
