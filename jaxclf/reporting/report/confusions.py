"""The confusion matrix of a page, and the scores of each class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxclf.figures.confusion import MAX_CLASSES, MAX_COUNTED, compute_cell_shades
from jaxclf.reporting.report.findings import (
    ClassScores,
    EvaluatedSplit,
    Proportion,
    find_confused_pairs,
    measure_classes,
    measure_proportion,
)

WIDE = 12  # classes; a larger matrix takes the width of the page


def describe_confusions(evaluated: EvaluatedSplit, present_only: bool = False) -> dict[str, Any]:
    """Return what confusions.html shows of a split.

    Args:
        evaluated: The evaluated split.
        present_only: Leave classes out of the table that no image has and none is predicted as.
    """
    names, matrix = evaluated.split.class_names, evaluated.matrix
    correct, total = int(matrix.diagonal().sum()), int(matrix.sum())
    classes = measure_classes(matrix, names)
    if present_only:
        classes = [row for row in classes if row.support or row.precision.n]
    return {
        "name": evaluated.name,
        "class_names": list(names),
        "accuracy": measure_proportion(correct, total),
        "mistake_count": total - correct,
        "cells": _compute_shaded_cells(matrix.toarray()) if len(names) <= MAX_CLASSES else [],
        "max_counted": MAX_COUNTED,
        "turned": max(map(len, names)) > 2,
        "wide": len(names) > WIDE,
        "pairs": find_confused_pairs(matrix),
        "support": matrix.sum(axis=1).tolist(),
        "classes": classes,
        "means": _compute_class_means(classes),
        "scale_start": get_scale_start([each for row in classes for each in (row.precision, row.recall, row.f1)]),
    }


def _compute_shaded_cells(matrix: np.ndarray) -> list[list[tuple[int, float]]]:
    """Return counts [true, predicted], each with the depth of its color from 0 to 1."""
    shades = np.abs(compute_cell_shades(matrix))
    return [list(zip(*row, strict=True)) for row in zip(matrix.tolist(), shades.tolist(), strict=True)]


def _compute_class_means(classes: Sequence[ClassScores]) -> dict[str, float | None]:
    """Return the means over classes of precision, recall and F1, of the classes that have them."""
    means = {}
    for name in ("precision", "recall", "f1"):
        values = [getattr(row, name).value for row in classes]
        known = [value for value in values if value is not None]
        means[name] = sum(known) / len(known) if known else None
    return means


def get_scale_start(proportions: Sequence[Proportion]) -> float:
    """Return the start of a scale that holds every interval: a multiple of 0.1."""
    known = [each.low for each in proportions if each.value is not None]
    return min(math.floor(10 * min(known)) / 10, 0.9) if known else 0.0
