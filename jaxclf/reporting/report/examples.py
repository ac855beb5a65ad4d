"""Images behind the cells of a confusion matrix, as many as there is room for."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxclf.reporting.report.findings import Evaluated
from jaxclf.reporting.report.page import surely
from jaxclf.reporting.report.pictures import image_uri

IN_CELL = 4
MOST = 600
SIDE = 64  # pixels
AROUND = 60  # bytes of an example beside its picture


def chosen(evaluated: Evaluated) -> np.ndarray:
    """Indices of the images worth the room: mistakes before others, one of each cell before a second of any.

    Cells of many images come first. Of their mistakes it is the surest, of what is right the least sure.
    """
    labels, found = evaluated.split.labels.astype(np.int64), evaluated.predictions
    right = labels == found
    confidence = evaluated.probabilities.max(axis=1)
    cells = labels * evaluated.logits.shape[1] + found
    order = np.lexsort((np.where(right, confidence, -confidence), cells))
    begins = np.flatnonzero(np.diff(cells[order], prepend=-1))
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order)) - np.repeat(begins, np.diff(begins, append=len(order)))
    first = np.lexsort((-evaluated.matrix[labels, found], ranks, right))
    return first[ranks[first] < IN_CELL][:MOST]


def examples(evaluated: Evaluated, room: int) -> dict[str, list[dict[str, Any]]]:
    """Pictures by cell, "true,found", that take at most so many bytes."""
    indices, found = chosen(evaluated), {}
    for i, image in zip(indices.tolist(), evaluated.split.images[indices], strict=True):
        true, taken_for = int(evaluated.split.labels[i]), int(evaluated.predictions[i])
        example = {"i": i, "p": surely(float(evaluated.probabilities[i, taken_for])), "src": image_uri(image, SIDE)}
        room -= len(example["src"]) + AROUND
        if room < 0:
            break
        found.setdefault(f"{true},{taken_for}", []).append(example)
    return found
