"""Settings of a benchmark: `--set field=values` as a grid, or drawn at random."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from jaxclf.errors import UserError, require

SEED = 0  # of random search: the same draws every time, and the first ten of twenty are those of ten
DIGITS = 3  # significant ones of a number that is drawn


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, each as likely as any other, or each order of magnitude."""

    scale: Literal["linear", "log"]
    low: float
    high: float

    def at(self, share: float) -> float:
        """The number at a share of the way, rounded to a few digits, for people."""
        if self.scale == "linear":
            value = self.low + share * (self.high - self.low)
        else:
            value = self.low * (self.high / self.low) ** share
        return min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high)


Values = tuple[str, ...] | Range
"""What a field may be: some values, as written, or a range of numbers."""
Setting = dict[str, str]
"""A value for each field that is set."""


def read_fields(words: Sequence[str]) -> dict[str, Values]:
    """The fields of `field=value,value` and `field=log:low:high`, in the order of their names."""
    fields: dict[str, Values] = {}
    for word in words:
        name, _, text = word.partition("=")
        name = name.replace("-", "_")
        if not name or not text or "" in (values := tuple(text.split(","))):
            raise UserError(f"--set {word}: expected field=value, field=value,value or field=log:low:high")
        require(name not in fields, f"--set {word}: {name} is set twice; put its values into one list, with commas")
        require(name != "seed", f"--set {word}: seeds are counted from 0; add --seeds N")
        fields[name] = read_range(word, text) or values
    return dict(sorted(fields.items()))


def read_range(word: str, text: str) -> Range | None:
    """The range `text` is, or None; raises UserError at one that has no numbers in it."""
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


def grid(fields: Mapping[str, Values]) -> list[Setting]:
    """Every combination of the values; raises UserError at a range, which has no end of them."""
    lists = []
    for name, values in fields.items():
        if isinstance(values, Range):
            raise UserError(f"--set {name}: a range is drawn from; add --sample N, or list values")
        lists.append(values)
    return [dict(zip(fields, chosen, strict=True)) for chosen in itertools.product(*lists)]


def draw(fields: Mapping[str, Values], count: int, whole: Collection[str]) -> list[Setting]:
    """As many settings drawn at random; those of them that are alike, once. `whole` names fields of whole numbers."""
    require(count >= 1, f"--sample {count}: expected at least 1")
    require(bool(fields), "--sample draws from fields; add --set, such as optimizer.learning_rate=log:1e-4:1e-1")
    settings = []
    for i in range(count):
        shares = np.random.default_rng((SEED, i)).random(len(fields))
        settings.append(
            {name: drawn(fields[name], share, name in whole) for name, share in zip(fields, shares, strict=True)}
        )
    return [setting for i, setting in enumerate(settings) if setting not in settings[:i]]


def drawn(values: Values, share: float, whole: bool) -> str:
    """What a field is at a share, from 0 to 1, of its values."""
    if not isinstance(values, Range):
        return values[int(share * len(values))]
    value = values.at(share)
    return str(round(value)) if whole else str(value)
