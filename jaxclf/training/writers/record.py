"""What a run reports: a record of numbers and of what is looked at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np


@dataclass(frozen=True)
class Image:
    """A picture among the values of a record: uint8 [h, w, c]."""

    pixels: np.ndarray


@dataclass(frozen=True)
class Text:
    """Markdown among the values of a record."""

    markdown: str


@dataclass(frozen=True)
class Histogram:
    """How numbers are spread, among the values of a record."""

    values: np.ndarray


@dataclass(frozen=True)
class Graph:
    """The operations of a network among the values of a record: each with name, operation, inputs and shape."""

    nodes: tuple[Any, ...]


@dataclass(frozen=True)
class HyperParameters:
    """What a run was made with, by dotted names, and what came of it, among the values of a record."""

    chosen: Mapping[str, Any]
    results: Mapping[str, float]


Shown = Image | Text | Histogram | Graph | HyperParameters


@dataclass(frozen=True)
class Record:
    """What is known of one split at one step."""

    step: int  # optimiser updates done
    epoch: float | int  # passes over the training images done
    split: str  # train, train_full (evaluated, not the running mean), validation or test
    period: Literal["interval", "epoch"]  # what the values are the mean of
    values: Mapping[str, float | int | str | Shown]


Writer = Callable[[Record], None]


def scalars(values: Mapping[str, Any]) -> dict[str, float]:
    """The values that are numbers. A metric may give arrays too, which have no place in a line."""
    return {name: float(value) for name, value in values.items() if np.ndim(value) == 0}
