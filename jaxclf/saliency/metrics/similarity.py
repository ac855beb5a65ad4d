"""Similarity of two maps: distance, correlation and structural similarity. Maps of zeros never give NaN."""

from __future__ import annotations

from math import prod

import jax.numpy as jnp
from jax import lax
from jax.scipy.stats import rankdata
from jaxtyping import Float

from jaxclf.types import Array

CONSTANT = 1e-6
"""Values whose deviations from their mean are smaller than this, relative to their size, are treated as constant."""


def compute_norm(x: Float[Array, "b targets ..."]) -> Float[Array, "b targets"]:
    """Compute the Euclidean norm of each map. It does not underflow."""
    flat = x.reshape(*x.shape[:2], -1)
    largest = jnp.abs(flat).max(axis=-1)
    scaled = flat / jnp.where(largest == 0, 1, largest)[..., None]
    return largest * jnp.sqrt(jnp.sum(scaled**2, axis=-1))


def compute_relative_distance(
    x: Float[Array, "b targets ..."], reference: Float[Array, "b targets ..."]
) -> Float[Array, "b targets"]:
    """Compute the distance of each map divided by the norm of its reference, or the distance if that is zero."""
    norm = compute_norm(reference)
    return compute_norm(x - reference) / jnp.where(norm == 0, 1, norm)


def compute_correlation(x: Float[Array, "*rest n"], y: Float[Array, "*rest n"]) -> Float[Array, "*rest"]:
    """Compute Pearson's correlation along the last axis; 0 where one of the two is constant."""
    return jnp.clip(jnp.sum(_standardize(x) * _standardize(y), axis=-1), -1, 1)


def _standardize(x: Float[Array, "*rest n"]) -> Float[Array, "*rest n"]:
    """Shift and scale to a mean of 0 and a norm of 1; constants become 0."""
    size = jnp.abs(x).max(axis=-1, keepdims=True)
    x = x / jnp.where(size == 0, 1, size)
    x = x - x.mean(axis=-1, keepdims=True)
    largest = jnp.abs(x).max(axis=-1, keepdims=True)
    # The deviations of a constant are rounding errors, which would be scaled up to a norm of 1.
    x = jnp.where(largest <= CONSTANT, 0, x / jnp.where(largest == 0, 1, largest))
    norm = jnp.sqrt(jnp.sum(x**2, axis=-1, keepdims=True))
    return x / jnp.where(norm == 0, 1, norm)


def compute_rank_correlation(x: Float[Array, "*rest n"], y: Float[Array, "*rest n"]) -> Float[Array, "*rest"]:
    """Compute Spearman's correlation along the last axis, with mean ranks for ties; 0 where one map is constant."""
    return compute_correlation(rankdata(x, axis=-1), rankdata(y, axis=-1))


def compute_ssim(x: Float[Array, "b targets *space"], y: Float[Array, "b targets *space"]) -> Float[Array, "b targets"]:
    """Compute the mean structural similarity over windows with sides of up to seven pixels; 1 for equal maps.

    Each map is divided by its largest absolute value first, so that values span [-1, 1].

    Z. Wang et al., "Image quality assessment" (2004), with equal weights and unbiased variances.
    """
    axes = tuple(range(2, x.ndim))
    x, y = _scale_to_unit(x, axes), _scale_to_unit(y, axes)
    sides = [min(7, size - 1 + size % 2) for size in x.shape[2:]]  # odd
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


def _scale_to_unit(x: Float[Array, "b targets *space"], axes: tuple[int, ...]) -> Float[Array, "b targets *space"]:
    largest = jnp.abs(x).max(axis=axes, keepdims=True)
    return x / jnp.where(largest == 0, 1, largest)
