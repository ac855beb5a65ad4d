"""Choice of the penalty of a linear probe by cross-validation, and an estimate of its accuracy by nested folds."""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import log_softmax

from jaxclf.errors import require
from jaxclf.inference.features.folds import draw_folds
from jaxclf.inference.features.probe import Probes, fit_probes

PENALTIES = np.logspace(-7, 0, 15, dtype=np.float32)
"""Penalties that are tried, for features with a mean squared distance of 1 from their mean."""


class Labeled(NamedTuple):
    """Features with their classes."""

    features: Float[np.ndarray, "n c"]
    labels: Int[np.ndarray, " n"]
    classes: int


def scale_features(
    train: Float[np.ndarray, "n c"], test: Float[np.ndarray, "m c"]
) -> tuple[Float[np.ndarray, "n c"], Float[np.ndarray, "m c"]]:
    """Return features with a mean squared distance of 1 from their mean, and others scaled by the same factor."""
    factor = compute_scale(train)
    return train * factor, test * factor


def compute_scale(train: Float[np.ndarray, "n c"]) -> np.float32:
    """Return the factor that gives features a mean squared distance of 1 from their mean."""
    return np.float32((float(train.var(axis=0, dtype=np.float64).sum()) or 1.0) ** -0.5)


class Validation(NamedTuple):
    """Results of cross-validation: of each penalty, the means over folds."""

    losses: Float[np.ndarray, " p"]
    """Cross-entropy of the held-out examples."""
    accuracies: Float[np.ndarray, " p"]

    @property
    def penalty(self) -> float:
        """The penalty with the lowest loss, which tells more than accuracies that differ by an example or two."""
        return float(PENALTIES[self.losses.argmin()])


def cross_validate(
    data: Labeled, folds: Int[np.ndarray, " n"], within: Bool[np.ndarray, " n"] | None = None
) -> Validation:
    """Fit each penalty on all folds but one, and measure the loss and accuracy on that one.

    Args:
        data: The training features.
        folds: The fold of each example.
        within: The examples that are used at all; None: all.
    """
    within = np.ones(len(folds), bool) if within is None else within
    numbers = range(int(folds.max()) + 1)
    held_out = np.stack([within & (folds == fold) for _ in PENALTIES for fold in numbers])
    probes = fit_probes(
        data.features, data.labels, data.classes, np.repeat(PENALTIES, len(numbers)), within[None] & ~held_out
    )
    results = np.array([score_probe(probes, i, data, rows) for i, rows in enumerate(held_out)])
    return Validation(*results.reshape(len(PENALTIES), -1, 2).mean(axis=1).T)


def score_probe(probes: Probes, i: int, data: Labeled, rows: Bool[np.ndarray, " n"]) -> tuple[float, float]:
    """Return the cross-entropy and the accuracy of one of some probes on some examples."""
    labels = data.labels[rows]
    logits = data.features[rows] @ probes.kernels[i] + probes.biases[i]
    losses = -log_softmax(logits, axis=1)[np.arange(len(labels)), labels]
    return float(losses.mean()), float((logits.argmax(axis=1) == labels).mean())


def check_nested(labels: Int[np.ndarray, " n"], folds: int) -> None:
    """Raise UserError unless every class keeps two images without any outer fold: inner folds are drawn from them."""
    draw_folds(labels, folds, 0)
    fewest = int(np.bincount(labels).min())
    require(
        fewest - ceil(fewest / folds) >= 2,
        f"folds={folds}: the smallest class has {fewest} images, and one fold less leaves "
        f"{fewest - ceil(fewest / folds)}; expected at least 2: add images, or change --folds",
    )


def estimate_nested(data: Labeled, folds: int, seed: int) -> Float[np.ndarray, " k"]:
    """Return the accuracy on each outer fold of probes whose penalty is chosen by inner folds within the others.

    There are as many inner folds as outer ones, or as many as the smallest class has images.
    """
    outer = draw_folds(data.labels, folds, seed)
    chosen = []
    for fold in range(folds):
        within = outer != fold
        inner = np.zeros(len(outer), np.int32)
        fewest = int(np.bincount(data.labels[within]).min())
        inner[within] = draw_folds(data.labels[within], min(folds, fewest), seed + 1 + fold)
        chosen.append(cross_validate(data, inner, within).penalty)
    held_out = np.stack([outer == fold for fold in range(folds)])
    probes = fit_probes(data.features, data.labels, data.classes, np.array(chosen, np.float32), ~held_out)
    return np.array([score_probe(probes, i, data, rows)[1] for i, rows in enumerate(held_out)])
