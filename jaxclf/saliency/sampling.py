"""Random keys of samples, and the mean of samples with its standard error."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, Key

from jaxclf.errors import require
from jaxclf.saliency.batching import fold, fold_until
from jaxclf.types import Array, promote_float

METRIC_SAMPLE = -1
"""Folded into the keys of metrics. The samples of methods are numbered from 0, so the two never share a key."""
BLOCK = 16
"""Samples after which a method with a tolerance looks at its standard errors: enough for an estimate of them."""


def fold_sample_keys(keys: Key[Array, " b"], sample: Int[Array, ""]) -> Key[Array, " b"]:
    """Return the key of each example's sample, which depends on neither batch, order nor number of devices."""
    return jax.vmap(partial(jax.random.fold_in, data=sample))(keys)


def make_metric_keys(keys: Key[Array, " b"]) -> Key[Array, " b"]:
    """Return keys for a metric that are independent of those that a method derives from the same keys.

    Args:
        keys: One key per example [b], as given to the method.

    Returns:
        Keys [b].
    """
    return fold_sample_keys(keys, jnp.int32(METRIC_SAMPLE))


class Moments(NamedTuple):
    """Number and mean of samples, and the sums of powers of their deviations from the mean."""

    count: Any  # tuple.count has the same name
    mean: Array
    second: Array
    third: Array
    fourth: Array

    @classmethod
    def from_samples(cls, samples: Float[Array, "n ..."]) -> Moments:
        """Compute the moments of samples along the first axis."""
        samples = promote_float(samples)
        mean = samples.mean(axis=0)
        deviations = samples - mean[None]
        sums = (jnp.sum(deviations**power, axis=0) for power in (2, 3, 4))
        return cls(jnp.float32(samples.shape[0]), mean, *sums)

    def merge(self, other: Moments) -> Moments:
        """Return the moments of both sets of samples.

        P. Pébay, "Formulas for robust, one-pass parallel computation of covariances" (2008).
        """
        # Sums of raw powers would be shorter, but subtracting large sums loses the digits of a small variance.
        m, n = self.count, other.count
        total = m + n
        gap = (other.mean - self.mean) / total
        second = self.second + other.second + gap**2 * (m * n * total)
        third = (
            self.third + other.third + gap**3 * (m * n * (m - n) * total)
            + 3 * gap * (m * other.second - n * self.second)
        )  # fmt: skip
        fourth = (
            self.fourth + other.fourth + gap**4 * (m * n * (m * m - m * n + n * n) * total)
            + 6 * gap**2 * (m * m * other.second + n * n * self.second)
            + 4 * gap * (m * other.third - n * self.third)
        )  # fmt: skip
        return Moments(total, self.mean + n * gap, second, third, fourth)

    def count_by_target(self) -> Moments:
        """Return the moments of values [b, targets, ...] with a count for each example and target."""
        shape = (*self.mean.shape[:2], *[1] * (self.mean.ndim - 2))
        return self._replace(count=jnp.broadcast_to(self.count, shape))

    @property
    def evaluations(self) -> Int[Array, " b"]:
        """The number of samples of each example, if the values are [b, targets, ...]."""
        most = jnp.max(self.count, axis=tuple(range(1, jnp.ndim(self.count))))
        return jnp.broadcast_to(most, self.mean.shape[:1]).astype(jnp.int32)

    @property
    def variance(self) -> Array:
        """The unbiased estimate of the variance; NaN for one sample."""
        return self.second / (self.count - 1)

    @property
    def stderr(self) -> Array:
        """The standard error of the mean; NaN for one sample."""
        return jnp.sqrt(self.variance / self.count)

    @property
    def stderr_of_variance(self) -> Array:
        """The standard error of the variance."""
        n = self.count
        return jnp.sqrt(jnp.maximum(self.fourth / n - (n - 3) / (n - 1) * self.variance**2, 0) / n)


def compute_moments(
    sample: Callable[[Int[Array, ""]], Float[Array, "b targets ..."]],
    samples: int,
    group_size: int,
    tolerance: float | None = None,
) -> Moments:
    """Compute the moments of `sample(j)` for j in range(samples), at most `group_size` of them at a time.

    With a tolerance, each example and target stops as `is_precise` tells, and has a count of its own.
    """

    def compute_group(js: Int[Array, " n"]) -> Moments:
        return Moments.from_samples(jax.vmap(sample)(js))

    if tolerance is None:
        return fold(compute_group, Moments.merge, jnp.arange(samples), group_size)
    return fold_until(
        lambda js: compute_group(js).count_by_target(),
        Moments.merge,
        lambda moments: is_precise(moments.mean, moments.stderr, tolerance),
        samples,
        BLOCK,
        group_size,
    )


def is_precise(
    values: Float[Array, "b targets ..."], stderr: Float[Array, "b targets ..."], tolerance: float
) -> Bool[Array, "b targets"]:
    """Return True for maps whose largest standard error is at most `tolerance` times their largest absolute value."""
    axes = tuple(range(2, values.ndim))
    return stderr.max(axes) <= tolerance * jnp.abs(values).max(axes)


def check_tolerance(tolerance: float | None) -> None:
    """Raise UserError unless a tolerance is positive or None."""
    require(tolerance is None or tolerance > 0, f"tolerance={tolerance}: expected more than 0, or None")
