"""What a run reports: records of numbers and of objects to look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8


@dataclass(frozen=True)
class Image:
    """An image: uint8 [h, w, c]."""

    pixels: UInt8[np.ndarray, "h w c"]


@dataclass(frozen=True)
class Text:
    """A text in Markdown."""

    markdown: str


@dataclass(frozen=True)
class Histogram:
    """Numbers whose distribution is shown."""

    values: np.ndarray


@dataclass(frozen=True)
class Graph:
    """The operations of a network: each with name, operation, inputs and shape."""

    nodes: tuple[Any, ...]


@dataclass(frozen=True)
class HyperParameters:
    """The config of a run by dotted names, and its results."""

    chosen: Mapping[str, Any]
    results: Mapping[str, float]


@dataclass(frozen=True)
class Artifact:
    """A file that belongs to the run, such as its report."""

    path: Path


ABOUT = ("step", "epoch", "split", "period")  # what a row is about, before its values
Shown = Image | Text | Histogram | Graph | HyperParameters | Artifact


@dataclass(frozen=True)
class Record:
    """What is known of one split at one step."""

    step: int
    """Optimizer updates done."""
    epoch: float | int
    """Passes over the training images done."""
    split: str
    """train, train_full (evaluated, not the running mean), validation or test."""
    period: Literal["interval", "epoch"]
    """What the values are the mean of."""
    values: Mapping[str, float | int | str | Shown]

    def to_row(self) -> dict[str, Any] | None:
        """Return the record as a row of metrics.jsonl: its numbers and strings; None if it has none."""
        values = {name: value for name, value in self.values.items() if not isinstance(value, Shown)}
        about = {name: getattr(self, name) for name in ABOUT}
        return about | values if values else None


def select_scalars(values: Mapping[str, Any]) -> dict[str, float]:
    """Return the values that are numbers: a metric may give arrays too."""
    return {name: float(value) for name, value in values.items() if np.ndim(value) == 0}


def tag_metrics(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a row as `split/name`; running means of a training epoch are `train/epoch_name`."""
    prefix = "epoch_" if (row["split"], row["period"]) == ("train", "epoch") else ""
    numbers = {name: value for name, value in row.items() if isinstance(value, int | float) and name not in ABOUT}
    return {f"{row['split']}/{prefix}{name}": float(value) for name, value in numbers.items()}
