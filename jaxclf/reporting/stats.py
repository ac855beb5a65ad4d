"""What a few measured numbers say: their mean, how they spread, and the interval in which the true mean lies."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtrit

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean and what is known of it."""

    mean: float
    n: int
    std: float | None
    """Of the values, by n - 1; None of fewer than two."""
    half_width: float | None
    """Of the 95 % confidence interval of the mean, by Student's t; None of fewer than two."""

    @property
    def low(self) -> float | None:
        """Where the interval begins."""
        return None if self.half_width is None else self.mean - self.half_width

    @property
    def high(self) -> float | None:
        """Where the interval ends."""
        return None if self.half_width is None else self.mean + self.half_width


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of at least one value, taken as independent draws of a normal distribution."""
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return Estimate(mean, n, None, None)
    std = float(np.std(values, ddof=1))
    return Estimate(mean, n, std, float(stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * std / math.sqrt(n))


def paired_difference(a: Mapping[int, float], b: Mapping[int, float]) -> Estimate:
    """The mean of a - b over the keys (seeds) both have, of which there must be one."""
    return estimate([a[key] - b[key] for key in sorted(a.keys() & b.keys())])


def interval_of_share(successes: int, n: int) -> tuple[float, float]:
    """The 95 % confidence interval of a share of which so many of n draws are known; of none, everything.

    E. B. Wilson, "Probable inference, the law of succession, and statistical inference" (1927).
    """
    if n == 0:
        return 0.0, 1.0
    z, share = float(ndtri((1 + CONFIDENCE) / 2)), successes / n
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half_width = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + (z / (2 * n)) ** 2)
    # Rounding must not leave the share of none or of all outside.
    return max(0.0, min(middle - half_width, share)), min(1.0, max(middle + half_width, share))
