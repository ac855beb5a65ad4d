"""Means, standard deviations and confidence intervals.

The closed forms are written out with scipy.special: scipy.stats gives the same intervals (tests compare them), but
delays the start of every command that imports it, and a report computes three intervals per class.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtrit

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A sample mean with its spread and confidence interval."""

    mean: float
    n: int
    """Number of values."""
    std: float | None
    """Sample standard deviation (n - 1 degrees of freedom); None for fewer than two values."""
    half_width: float | None
    """Half the width of the 95 % confidence interval of the mean (Student's t); None for fewer than two values."""

    @property
    def low(self) -> float | None:
        """Lower end of the confidence interval."""
        return None if self.half_width is None else self.mean - self.half_width

    @property
    def high(self) -> float | None:
        """Upper end of the confidence interval."""
        return None if self.half_width is None else self.mean + self.half_width


def estimate(values: Sequence[float]) -> Estimate:
    """Estimate the mean of a normal distribution from independent draws.

    Args:
        values: At least one value.

    Returns:
        The sample mean with its 95 % confidence interval.
    """
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return Estimate(mean, n, None, None)
    std = float(np.std(values, ddof=1))
    return Estimate(mean, n, std, float(stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * std / math.sqrt(n))


def estimate_paired_difference(a: Mapping[int, float], b: Mapping[int, float]) -> Estimate:
    """Estimate the mean of a - b over the keys (seeds) that both have, at least one."""
    return estimate([a[key] - b[key] for key in sorted(a.keys() & b.keys())])


def estimate_proportion_interval(successes: int, n: int) -> tuple[float, float]:
    """Compute the 95 % confidence interval of a proportion.

    E. B. Wilson, "Probable inference, the law of succession, and statistical inference" (1927).

    Args:
        successes: Number of successes.
        n: Number of trials.

    Returns:
        The ends of the interval; (0, 1) if there are no trials.
    """
    if n == 0:
        return 0.0, 1.0
    z, proportion = float(ndtri((1 + CONFIDENCE) / 2)), successes / n
    center = (proportion + z**2 / (2 * n)) / (1 + z**2 / n)
    half_width = z / (1 + z**2 / n) * math.sqrt(proportion * (1 - proportion) / n + (z / (2 * n)) ** 2)
    # Rounding must not exclude the proportion itself when it is 0 or 1.
    return max(0.0, min(center - half_width, proportion)), min(1.0, max(center + half_width, proportion))
