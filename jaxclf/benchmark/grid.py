"""Settings of a benchmark: grids and random samples of the values that `--set` gives to fields."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from jaxclf.errors import UserError, require

SEED = 0  # of random search, fixed: samples are reproducible, and a larger sample extends a smaller one
DIGITS = 3  # significant digits of a sampled number


@dataclass(frozen=True)
class Range:
    """A uniform or log-uniform distribution from `low` to `high`."""

    scale: Literal["linear", "log"]
    low: float
    high: float

    def interpolate(self, fraction: float) -> float:
        """Return the quantile at a fraction in [0, 1], rounded to a few significant digits."""
        if self.scale == "linear":
            value = self.low + fraction * (self.high - self.low)
        else:
            value = self.low * (self.high / self.low) ** fraction
        return min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high)


Values = tuple[str, ...] | Range
"""The values of a field: a list, as text, or a range of numbers."""
Setting = dict[str, str]
"""One value for each field, as text."""


def parse_fields(words: Sequence[str]) -> dict[str, Values]:
    """Parse the arguments of `--set`.

    Args:
        words: Such as `field=value,value` and `field=log:low:high`.

    Returns:
        The values of each field, sorted by field name.

    Raises:
        UserError: For an argument of another form, a field that is given twice, and the field `seed`.
    """
    fields: dict[str, Values] = {}
    for word in words:
        name, _, text = word.partition("=")
        name = name.replace("-", "_")
        if not name or not text or "" in (values := tuple(text.split(","))):
            raise UserError(f"--set {word}: expected field=value, field=value,value or field=log:low:high")
        require(name not in fields, f"--set {word}: {name} is set twice; put its values into one list, with commas")
        require(name != "seed", f"--set {word}: seeds are counted from 0; add --seeds N")
        fields[name] = _parse_range(word, text) or values
    return dict(sorted(fields.items()))


def _parse_range(word: str, text: str) -> Range | None:
    """Parse `log:low:high` or `linear:low:high`; return None for text of another form."""
    scale, *ends = text.split(":")
    if scale not in ("linear", "log") or len(ends) != 2:
        return None
    try:
        low, high = map(float, ends)
    except ValueError:
        raise UserError(f"--set {word}: {ends} are not two numbers") from None
    least = 0 if scale == "log" else -math.inf
    require(least < low < high < math.inf, f"--set {word}: expected {scale}:low:high with {least:g} < low < high")
    return Range("log" if scale == "log" else "linear", low, high)


def expand_grid(fields: Mapping[str, Values]) -> list[Setting]:
    """Return every combination of the values. Raise UserError for a range, which has no finite grid."""
    lists = []
    for name, values in fields.items():
        if isinstance(values, Range):
            raise UserError(f"--set {name}: a range can only be sampled; add --sample N, or list values")
        lists.append(values)
    return [dict(zip(fields, combination, strict=True)) for combination in itertools.product(*lists)]


def sample_settings(fields: Mapping[str, Values], count: int, integers: Collection[str]) -> list[Setting]:
    """Sample settings at random.

    Args:
        fields: The values of each field.
        count: Number of samples.
        integers: Fields whose values are rounded to integers.

    Returns:
        The settings without duplicates, so possibly fewer than `count`. Those of a smaller count come first.

    Raises:
        UserError: If there is no field, or `count` is less than 1.
    """
    require(count >= 1, f"--sample {count}: expected at least 1")
    require(bool(fields), "--sample needs fields to sample; add --set, such as optimizer.learning_rate=log:1e-4:1e-1")
    settings = []
    for i in range(count):
        fractions = np.random.default_rng((SEED, i)).random(len(fields))
        settings.append(
            {
                name: _pick_value(fields[name], fraction, name in integers)
                for name, fraction in zip(fields, fractions, strict=True)
            }
        )
    return [setting for i, setting in enumerate(settings) if setting not in settings[:i]]


def _pick_value(values: Values, fraction: float, integer: bool) -> str:
    """Return the value at a fraction, in [0, 1), of a list or range."""
    if not isinstance(values, Range):
        return values[int(fraction * len(values))]
    value = values.interpolate(fraction)
    return str(round(value)) if integer else str(value)
