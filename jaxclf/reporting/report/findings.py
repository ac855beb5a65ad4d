"""Numbers of a report: what is computed from the logits and labels of a split."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array

from jaxclf.figures.confusion import count_confusions
from jaxclf.figures.curves import Reliability
from jaxclf.reporting.calibration import (
    compute_brier_scores,
    compute_calibration_error,
    compute_log_probabilities,
    compute_negative_log_likelihoods,
    compute_reliability,
    fit_temperature,
)
from jaxclf.reporting.stats import Estimate, estimate, estimate_proportion_interval
from jaxclf.types import Split, Splits

MAX_PAIRS = 10  # listed pairs of confused classes
MAX_SKIPPED = 20  # listed files that could not be read


@dataclass(frozen=True, eq=False)
class EvaluatedSplit:
    """A split of a run's data with the logits of the network."""

    splits: Splits
    """All data of the run."""
    name: str
    """Name of the split."""
    logits: Float[np.ndarray, "n classes"]
    """Logits of its images."""
    validation_logits: Float[np.ndarray, "v classes"] | None = None
    """Logits of the validation images, for temperature scaling; unused if the split is validation itself."""
    weights: Literal["ema", "raw"] = "ema"
    """Exponential moving average of the parameters, where the run keeps one, or the parameters themselves."""

    @property
    def split(self) -> Split:
        """Images and labels."""
        return self.splits[self.name]

    @cached_property
    def probabilities(self) -> Float[np.ndarray, "n classes"]:
        """Probability of each class."""
        return np.exp(compute_log_probabilities(self.logits))

    @cached_property
    def predictions(self) -> Int[np.ndarray, " n"]:
        """Most probable class."""
        return self.logits.argmax(axis=1)

    @cached_property
    def matrix(self) -> csr_array:
        """Confusion matrix [true, predicted]."""
        return count_confusions(self.split.labels, self.predictions, self.logits.shape[1])


class Proportion(NamedTuple):
    """A proportion of n with its 95 % confidence interval; the value is None if n is 0."""

    value: float | None
    low: float
    high: float
    n: int


def measure_proportion(successes: int, n: int) -> Proportion:
    """Return the proportion of successes with its interval."""
    return Proportion(successes / n if n else None, *estimate_proportion_interval(successes, n), n)


class ClassScores(NamedTuple):
    """Scores of one class."""

    name: str
    precision: Proportion
    recall: Proportion
    f1: Proportion
    support: int


def measure_classes(matrix: csr_array, class_names: tuple[str, ...]) -> list[ClassScores]:
    """Compute precision, recall and F1 of each class from the confusion matrix [true, predicted]."""
    counts = zip(*(each.tolist() for each in (matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0))), strict=True)
    scores = []
    for name, (correct, support, predicted) in zip(class_names, counts, strict=True):
        precision, recall = measure_proportion(correct, predicted), measure_proportion(correct, support)
        f1 = _measure_f1(correct, support + predicted - correct)
        scores.append(ClassScores(name, precision, recall, f1, support))
    return scores


def _measure_f1(correct: int, union: int) -> Proportion:
    """Return F1 with its interval: F1 = 2J / (1 + J) increases with the Jaccard index J, which is a proportion."""
    value, low, high, n = measure_proportion(correct, union)
    return Proportion(None if value is None else 2 * value / (1 + value), 2 * low / (1 + low), 2 * high / (1 + high), n)


class ConfusedPair(NamedTuple):
    """A class that was predicted as another."""

    true: int
    predicted: int
    images: int
    proportion: float
    """Of the images of the true class."""


def find_confused_pairs(matrix: csr_array) -> list[ConfusedPair]:
    """Return the most frequent confusions of the matrix [true, predicted], in decreasing order."""
    support, cells = matrix.sum(axis=1), matrix.tocoo()
    wrong = np.flatnonzero(cells.row != cells.col)
    order = wrong[np.argsort(np.negative(cells.data[wrong]), kind="stable")[:MAX_PAIRS]]
    pairs = zip(cells.row[order].tolist(), cells.col[order].tolist(), cells.data[order].tolist(), strict=True)
    return [ConfusedPair(i, j, images, images / support[i]) for i, j, images in pairs]


class Calibration(NamedTuple):
    """Calibration of logits on labels."""

    reliability: Reliability
    error: float
    brier: Estimate
    loss: Estimate


def measure_calibration(logits: np.ndarray, labels: np.ndarray) -> Calibration:
    """Compute the reliability diagram, the expected calibration error, the Brier score and the log loss."""
    return Calibration(
        compute_reliability(logits, labels),
        compute_calibration_error(logits, labels),
        estimate(compute_brier_scores(logits, labels).tolist()),
        estimate(compute_negative_log_likelihoods(logits, labels).tolist()),
    )


class ScaledCalibration(NamedTuple):
    """Calibration after temperature scaling."""

    temperature: float
    n: int
    """Number of validation images it was fitted on."""
    calibration: Calibration


def scale_temperature(evaluated: EvaluatedSplit) -> ScaledCalibration | None:
    """Fit a temperature on the validation images and measure the split with it; None without other images to fit on."""
    validation, logits = evaluated.splits.validation, evaluated.validation_logits
    if validation is None or logits is None or evaluated.name == "validation":
        return None
    temperature = fit_temperature(logits, validation.labels)
    scaled = measure_calibration(evaluated.logits / temperature, evaluated.split.labels)
    return ScaledCalibration(temperature, len(validation), scaled)


def find_worst_mistakes(evaluated: EvaluatedSplit, limit: int) -> np.ndarray:
    """Return the indices of the mistakes with the highest losses, in decreasing order."""
    losses = compute_negative_log_likelihoods(evaluated.logits, evaluated.split.labels)
    wrong = np.flatnonzero(evaluated.predictions != evaluated.split.labels)
    return wrong[np.argsort(-losses[wrong], kind="stable")[:limit]]


def summarize_data(splits: Splits) -> dict[str, Any]:
    """Return the sizes and class counts of all splits, and the files that were skipped."""
    present = {name: split for name, split in splits.items() if split is not None}
    names = splits.train.class_names
    counts = {name: np.bincount(split.labels, minlength=len(names)).tolist() for name, split in present.items()}
    return {
        "image_shape": splits.train.image_shape,
        "sizes": {name: len(split) for name, split in present.items()},
        "largest": {name: max(of_split) for name, of_split in counts.items()},
        "classes": [
            (name, {split: of_split[i] for split, of_split in counts.items()})
            for i, name in enumerate(names)
            if any(of_split[i] for of_split in counts.values())  # pretrained weights may have many others
        ],
        "remarks": splits.remarks,
        "skipped": splits.skipped[:MAX_SKIPPED],
        "skipped_count": len(splits.skipped),
    }
