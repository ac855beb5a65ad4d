"""Means of random samples, with their standard errors."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, Key

from jaxclf.saliency.batching import fold
from jaxclf.types import Array


class Moments(NamedTuple):
    """Number and mean of samples, and the sums of the powers of their distances from it."""

    count: Any
    mean: Any
    second: Any
    third: Any
    fourth: Any

    @classmethod
    def of(cls, samples: Float[Array, "n ..."]) -> Moments:
        """Of samples along the first axis."""
        mean = samples.mean(axis=0)
        distances = samples - mean[None]
        sums = (jnp.sum(distances**power, axis=0) for power in (2, 3, 4))
        return cls(jnp.float32(samples.shape[0]), mean, *sums)

    def merge(self, other: Moments) -> Moments:
        """Of both sets of samples: no differences of large sums, so no cancellation.

        P. Pébay, "Formulas for robust, one-pass parallel computation of covariances" (2008).
        """
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
    def variance(self) -> Any:
        """The unbiased estimate, NaN of one sample."""
        return self.second / (self.count - 1)

    @property
    def stderr(self) -> Any:
        """The standard error of the mean, NaN of one sample."""
        return jnp.sqrt(self.variance / self.count)

    @property
    def stderr_of_variance(self) -> Any:
        """The standard error of the variance."""
        n = self.count
        return jnp.sqrt(jnp.maximum(self.fourth / n - (n - 3) / (n - 1) * self.variance**2, 0) / n)


def moments_over(sample: Callable[[Int[Array, ""]], Float[Array, ...]], samples: int, at_once: int) -> Moments:
    """The moments of `sample(j)` for j = 0 to samples - 1, a tensor each, at most `at_once` of them at once."""
    return fold(lambda js: Moments.of(jax.vmap(sample)(js)), Moments.merge, jnp.arange(samples), at_once)


def sample_keys(keys: Key[Array, " b"], j: Int[Array, ""]) -> Key[Array, " b"]:
    """The key of each example's sample j: the same in any batch, order or number of devices."""
    return jax.vmap(partial(jax.random.fold_in, data=j))(keys)
