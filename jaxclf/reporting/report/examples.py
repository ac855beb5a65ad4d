"""Example images for the cells of the confusion matrix, as many as fit into the page."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxclf.reporting.report.findings import EvaluatedSplit
from jaxclf.reporting.report.page import format_probability
from jaxclf.reporting.report.pictures import encode_image

PER_CELL = 4
MAX_EXAMPLES = 600
SIDE = 64  # pixels
OVERHEAD = 60  # bytes of an example besides its picture


def select_examples(evaluated: EvaluatedSplit) -> np.ndarray:
    """Return the indices of example images in order of priority.

    Mistakes come before correct predictions, one image of each cell before a second of any, and cells with many images
    first. Of mistakes the most confident ones are taken, of correct predictions the least confident ones.
    """
    labels, predictions = evaluated.split.labels.astype(np.int64), evaluated.predictions
    correct = labels == predictions
    confidence = evaluated.probabilities.max(axis=1)
    cells = labels * evaluated.logits.shape[1] + predictions
    order = np.lexsort((np.where(correct, confidence, -confidence), cells))
    starts = np.flatnonzero(np.diff(cells[order], prepend=-1))
    ranks = np.empty(len(order), np.int64)  # of each image in its cell
    ranks[order] = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
    priority = np.lexsort((-evaluated.matrix[labels, predictions], ranks, correct))
    return priority[ranks[priority] < PER_CELL][:MAX_EXAMPLES]


def collect_examples(evaluated: EvaluatedSplit, limit: int) -> dict[str, list[dict[str, Any]]]:
    """Return example images by cell, "true,predicted", of at most `limit` bytes together."""
    indices, examples = select_examples(evaluated), {}
    for i, image in zip(indices.tolist(), evaluated.split.images[indices], strict=True):
        true, predicted = int(evaluated.split.labels[i]), int(evaluated.predictions[i])
        confidence = format_probability(float(evaluated.probabilities[i, predicted]))
        example = {"i": i, "p": confidence, "src": encode_image(image, SIDE)}
        limit -= len(example["src"]) + OVERHEAD
        if limit < 0:
            break
        examples.setdefault(f"{true},{predicted}", []).append(example)
    return examples
