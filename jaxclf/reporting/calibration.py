"""Whether confidences can be believed: measures of logits and labels, and the temperature that mends them."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Integer
from scipy.special import log_softmax

BINS = 15  # of confidence, all as wide
TEMPERATURES = 0.05, 20.0  # between which one is sought

Logits = Float[np.ndarray, "b classes"]
Labels = Integer[np.ndarray, " b"]


def log_probabilities(logits: Logits) -> Float[np.ndarray, "b classes"]:
    """The logarithm of each class's probability, in float64."""
    return log_softmax(logits.astype(np.float64), axis=1)


def negative_log_likelihood(logits: Logits, labels: Labels) -> Float[np.ndarray, " b"]:
    """Minus the logarithm of the label's probability, in nats, of each example."""
    return -log_probabilities(logits)[np.arange(len(labels)), labels]


def brier(logits: Logits, labels: Labels) -> Float[np.ndarray, " b"]:
    """The squared distance of the probabilities from the one-hot label, of each example: from 0, which is best, to 2.

    G. Brier, "Verification of forecasts expressed in terms of probability" (1950).
    """
    away = np.exp(log_probabilities(logits))
    away[np.arange(len(labels)), labels] -= 1
    return np.sum(away**2, axis=1)


class Reliability(NamedTuple):
    """Examples by their confidence, in bins of equal width from 0 to 1. Of an empty bin the means are NaN."""

    examples: Int[np.ndarray, " bins"]
    confidence: Float[np.ndarray, " bins"]
    """The mean of the highest probability."""
    accuracy: Float[np.ndarray, " bins"]


def reliability(logits: Logits, labels: Labels, bins: int = BINS) -> Reliability:
    """How often the predictions of each confidence are right. A bin holds its upper end."""
    confidence = np.exp(log_probabilities(logits).max(axis=1))
    right = logits.argmax(axis=1) == labels
    # What is not finite is put in the first bin, whose means are NaN then.
    places = np.clip(np.ceil(np.nan_to_num(confidence) * bins).astype(np.int64) - 1, 0, bins - 1)
    count = np.bincount(places, minlength=bins)
    sums = (np.bincount(places, weights, bins) for weights in (confidence, right))
    means = (np.where(count > 0, total / np.maximum(count, 1), np.nan) for total in sums)
    return Reliability(count, *means)


def expected_calibration_error(logits: Logits, labels: Labels, bins: int = BINS) -> float:
    """How far confidence is from accuracy: the mean over examples of the difference in their bin, from 0 to 1.

    C. Guo et al., "On calibration of modern neural networks" (2017), arXiv:1706.04599.
    """
    found = reliability(logits, labels, bins)
    gaps = np.where(found.examples > 0, np.abs(found.confidence - found.accuracy), 0)
    return float(np.sum(found.examples * gaps) / len(labels))


def temperature(logits: Logits, labels: Labels) -> float:
    """What logits are divided by to make these labels most likely; no prediction changes.

    It is sought between 0.05 and 20, and is at the end of that where no temperature is best: of predictions that are
    all right, the lower. Fit it on other examples than those it is judged by. C. Guo et al. (2017).
    """
    from scipy.optimize import minimize_scalar  # 0.4 s, and not every command fits a temperature

    def loss(logarithm: float) -> float:
        return float(negative_log_likelihood(logits / math.exp(logarithm), labels).mean())

    low, high = map(math.log, TEMPERATURES)
    return math.exp(minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-4}).x)
