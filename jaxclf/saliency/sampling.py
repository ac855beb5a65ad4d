"""Random keys of samples, and the mean of samples with its standard error."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, Key

from jaxclf.saliency.batching import fold
from jaxclf.types import Array

METRIC_SAMPLE = -1
"""Folded into the keys of metrics. The samples of methods are numbered from 0, so the two never share a key."""


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


def compute_moments(sample: Callable[[Int[Array, ""]], Float[Array, ...]], samples: int, group_size: int) -> Moments:
    """Compute the moments of `sample(j)` for j in range(samples), at most `group_size` of them at a time."""
    return fold(lambda js: Moments.from_samples(jax.vmap(sample)(js)), Moments.merge, jnp.arange(samples), group_size)
