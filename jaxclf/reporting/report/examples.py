"""Images of a page: mistakes, and examples for the cells of the confusion matrix, as many as fit into it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxclf.reporting.report.findings import EvaluatedSplit
from jaxclf.reporting.report.page import format_probability, render
from jaxclf.reporting.report.pictures import encode_image

PER_CELL = 4
MAX_EXAMPLES = 600
SIDE = 64  # pixels of an example, at most
LARGE_SIDE = 128  # pixels of an image that is shown by itself
MAX_BYTES = 4_900_000  # of a page
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


def render_with_examples(template: str, values: Mapping[str, Any], evaluated: EvaluatedSplit) -> bytes:
    """Render a template that has confusions.html, with as many examples as fit into a page of 5 MB."""
    room = MAX_BYTES - len(render(template, {**values, "examples": {}}))
    return render(template, {**values, "examples": collect_examples(evaluated, room)})


def describe_image(evaluated: EvaluatedSplit, i: int, image: np.ndarray) -> dict[str, Any]:
    """Return an image of the split with its true and predicted class and their probabilities."""
    split, label, predicted = evaluated.split, int(evaluated.split.labels[i]), int(evaluated.predictions[i])
    files = getattr(split.images, "paths", ())
    return {
        "index": i,
        "src": encode_image(image, LARGE_SIDE),
        "file": str(files[i]) if files else "",
        "predicted": split.class_names[predicted],
        "true": split.class_names[label],
        "correct": predicted == label,
        "confidence": float(evaluated.probabilities[i, predicted]),
        "true_confidence": float(evaluated.probabilities[i, label]),
    }
