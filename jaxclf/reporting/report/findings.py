"""What a report says of an evaluated split: arrays in, numbers and rows out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxclf.reporting.calibration import (
    Reliability,
    brier,
    expected_calibration_error,
    log_probabilities,
    negative_log_likelihood,
    reliability,
    temperature,
)
from jaxclf.reporting.stats import Estimate, estimate, interval_of_share
from jaxclf.types import Split, Splits

PAIRS = 10  # of classes most often confused
LISTED = 20  # files left out that are named


@dataclass(frozen=True, eq=False)
class Evaluated:
    """A split of a run's data, and what the network makes of it."""

    splits: Splits
    name: str
    """Which of them."""
    logits: Float[np.ndarray, "n classes"]
    validation_logits: Float[np.ndarray, "v classes"] | None = None
    """To fit a temperature with, unless that is the split itself."""
    weights: Literal["ema", "raw"] = "ema"
    """The running mean of the parameters, where the run keeps one, or the parameters themselves."""

    @property
    def split(self) -> Split:
        """The images and their labels."""
        return self.splits[self.name]

    @cached_property
    def probabilities(self) -> Float[np.ndarray, "n classes"]:
        """Of each class."""
        return np.exp(log_probabilities(self.logits))

    @cached_property
    def predictions(self) -> Int[np.ndarray, " n"]:
        """The most probable class."""
        return self.logits.argmax(axis=1)

    @cached_property
    def matrix(self) -> Int[np.ndarray, "classes classes"]:
        """Counts [true, found]."""
        counts = np.zeros((self.logits.shape[1],) * 2, np.int64)
        np.add.at(counts, (self.split.labels, self.predictions), 1)
        return counts


class Share(NamedTuple):
    """A share of n, and its 95 % interval; of none, None."""

    value: float | None
    low: float
    high: float
    n: int


def share(successes: int, n: int) -> Share:
    """So many of n."""
    return Share(successes / n if n else None, *interval_of_share(successes, n), n)


class ClassRow(NamedTuple):
    """How well one class is found."""

    name: str
    precision: Share
    recall: Share
    f1: Share
    support: int


def class_rows(matrix: Int[np.ndarray, "classes classes"], class_names: tuple[str, ...]) -> list[ClassRow]:
    """A row a class, from counts [true, found]. What has no images, or is never found, is None."""
    rows = []
    for label, name in enumerate(class_names):
        right, support, found = int(matrix[label, label]), int(matrix[label].sum()), int(matrix[:, label].sum())
        f1 = harmonic(share(right, support + found - right))
        rows.append(ClassRow(name, share(right, found), share(right, support), f1, support))
    return rows


def harmonic(union: Share) -> Share:
    """F1 of the share J that is right of all that is of a class or found as it: F1 = 2J/(1 + J), which grows with J."""
    value, low, high, n = union
    return Share(None if value is None else 2 * value / (1 + value), 2 * low / (1 + low), 2 * high / (1 + high), n)


class Pair(NamedTuple):
    """A class taken for another."""

    true: int
    found: int
    images: int
    share: float  # of the images of the true one


def confused_pairs(matrix: Int[np.ndarray, "classes classes"]) -> list[Pair]:
    """The most frequent confusions, the most frequent first."""
    wrong = np.where(np.eye(len(matrix), dtype=bool), 0, matrix)
    order = np.argsort(-wrong, axis=None, kind="stable")[:PAIRS]
    places = [(int(place) // len(matrix), int(place) % len(matrix)) for place in order]
    support = matrix.sum(axis=1)
    return [Pair(i, j, int(wrong[i, j]), wrong[i, j] / support[i]) for i, j in places if wrong[i, j]]


class Calibration(NamedTuple):
    """How far the confidences of some logits can be believed."""

    bins: Reliability
    error: float
    brier: Estimate
    loss: Estimate


def calibration(logits: np.ndarray, labels: np.ndarray) -> Calibration:
    """All that is measured of confidences."""
    return Calibration(
        reliability(logits, labels),
        expected_calibration_error(logits, labels),
        estimate(brier(logits, labels).tolist()),
        estimate(negative_log_likelihood(logits, labels).tolist()),
    )


class Scaled(NamedTuple):
    """Confidences after temperature scaling."""

    temperature: float
    n: int  # validation images it was fitted on
    calibration: Calibration


def scaled(evaluated: Evaluated) -> Scaled | None:
    """Confidences after temperature scaling, where there are validation images to fit one on and they are others."""
    validation, logits = evaluated.splits.validation, evaluated.validation_logits
    if validation is None or logits is None or evaluated.name == "validation":
        return None
    found = temperature(logits, validation.labels)
    return Scaled(found, len(validation), calibration(evaluated.logits / found, evaluated.split.labels))


def worst(evaluated: Evaluated, most: int) -> np.ndarray:
    """Indices of the mistakes in which the true class was least expected, the worst first."""
    losses = negative_log_likelihood(evaluated.logits, evaluated.split.labels)
    wrong = np.flatnonzero(evaluated.predictions != evaluated.split.labels)
    return wrong[np.argsort(-losses[wrong], kind="stable")[:most]]


def data_card(splits: Splits) -> dict[str, Any]:
    """What the data is: sizes, class counts by split, what was left out."""
    present = {name: split for name, split in splits.items() if split is not None}
    names = splits.train.class_names
    counts = {name: np.bincount(split.labels, minlength=len(names)).tolist() for name, split in present.items()}
    return {
        "image_shape": splits.train.image_shape,
        "sizes": {name: len(split) for name, split in present.items()},
        "most": {name: max(of_split) for name, of_split in counts.items()},
        "classes": [(name, {split: of_split[i] for split, of_split in counts.items()}) for i, name in enumerate(names)],
        "remarks": splits.remarks,
        "skipped": splits.skipped[:LISTED],
        "skipped_count": len(splits.skipped),
    }
