"""Calibration of predicted probabilities: measures of logits and labels, and temperature scaling."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Integer
from scipy.special import log_softmax

from jaxclf.figures.curves import Reliability

BINS = 15  # of equal width
TEMPERATURES = 0.05, 20.0  # bounds of the search

Logits = Float[np.ndarray, "b classes"]
Labels = Integer[np.ndarray, " b"]


def compute_log_probabilities(logits: Logits) -> Float[np.ndarray, "b classes"]:
    """Return the logarithm of each class's probability.

    Args:
        logits: Unnormalized scores [b, classes].

    Returns:
        Log-probabilities [b, classes] in nats, as float64.
    """
    return log_softmax(logits.astype(np.float64), axis=1)


def compute_negative_log_likelihoods(logits: Logits, labels: Labels) -> Float[np.ndarray, " b"]:
    """Return the negative log-likelihood of each example's label.

    Args:
        logits: Unnormalized scores [b, classes].
        labels: Class indices [b].

    Returns:
        Losses [b] in nats.
    """
    return -compute_log_probabilities(logits)[np.arange(len(labels)), labels]


def compute_brier_scores(logits: Logits, labels: Labels) -> Float[np.ndarray, " b"]:
    """Return the squared distance between the probabilities and the one-hot label of each example.

    G. Brier, "Verification of forecasts expressed in terms of probability" (1950).

    Args:
        logits: Unnormalized scores [b, classes].
        labels: Class indices [b].

    Returns:
        Scores [b] from 0, the best, to 2.
    """
    errors = np.exp(compute_log_probabilities(logits))
    errors[np.arange(len(labels)), labels] -= 1
    return np.sum(errors**2, axis=1)


def compute_reliability(logits: Logits, labels: Labels, bins: int = BINS) -> Reliability:
    """Compute a reliability diagram: accuracy as a function of confidence.

    Args:
        logits: Unnormalized scores [b, classes].
        labels: Class indices [b].
        bins: Number of bins. The upper end of a bin belongs to it.

    Returns:
        Count, mean confidence and accuracy of each bin.
    """
    confidence = np.exp(compute_log_probabilities(logits).max(axis=1))
    correct = logits.argmax(axis=1) == labels
    # Confidences that are not finite go to the first bin, whose means then become NaN instead of hiding them.
    indices = np.clip(np.ceil(np.nan_to_num(confidence) * bins).astype(np.int64) - 1, 0, bins - 1)
    count = np.bincount(indices, minlength=bins)
    sums = (np.bincount(indices, weights, bins) for weights in (confidence, correct))
    means = (np.where(count > 0, total / np.maximum(count, 1), np.nan) for total in sums)
    return Reliability(count, *means)


def compute_calibration_error(logits: Logits, labels: Labels, bins: int = BINS) -> float:
    """Compute the expected calibration error (ECE): the mean difference between confidence and accuracy.

    C. Guo et al., "On calibration of modern neural networks" (2017), arXiv:1706.04599.

    Args:
        logits: Unnormalized scores [b, classes].
        labels: Class indices [b].
        bins: Number of bins of confidence.

    Returns:
        The error from 0 to 1, in which every bin is weighted by its number of examples.
    """
    reliability = compute_reliability(logits, labels, bins)
    gaps = np.where(reliability.examples > 0, np.abs(reliability.confidence - reliability.accuracy), 0)
    return float(np.sum(reliability.examples * gaps) / len(labels))


def fit_temperature(logits: Logits, labels: Labels) -> float:
    """Fit the temperature that minimizes the negative log-likelihood of the labels. Predictions do not change.

    C. Guo et al. (2017). Fit it on other examples than those it is evaluated on.

    Args:
        logits: Unnormalized scores [b, classes].
        labels: Class indices [b].

    Returns:
        What to divide logits by, between 0.05 and 20. If every prediction is correct there is no optimum, and it is
        the lower bound.
    """
    from scipy.optimize import minimize_scalar  # takes 0.4 s to import, and few commands need it

    def compute_loss(logarithm: float) -> float:
        return float(compute_negative_log_likelihoods(logits / math.exp(logarithm), labels).mean())

    low, high = map(math.log, TEMPERATURES)
    return math.exp(minimize_scalar(compute_loss, bounds=(low, high), method="bounded", options={"xatol": 1e-4}).x)
