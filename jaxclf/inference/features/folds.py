"""Folds of cross-validation, stratified by class."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int

from jaxclf.errors import require


def draw_folds(labels: Int[np.ndarray, " n"], folds: int, seed: int) -> Int[np.ndarray, " n"]:
    """Draw a fold for each example, so that every class is spread evenly.

    Args:
        labels: Class of each example.
        folds: Number of folds.
        seed: Seed of the draw.

    Returns:
        The fold of each example, from 0. Sizes of the folds differ by at most one for each class.

    Raises:
        UserError: If a class has fewer examples than there are folds.
    """
    counts = np.bincount(labels)
    fewest = int(counts[counts > 0].min())
    require(
        fewest > 1,
        "a class has one training image: expected at least 2; add images, or leave the class out of the folder",
    )
    require(
        fewest >= folds > 1,
        f"folds={folds}: expected 2 to {fewest}, the number of images of the smallest class; "
        "change --folds, or leave small classes out with --dataset.min-images, which counts all splits",
    )
    random = np.random.default_rng(seed)
    drawn = np.empty(len(labels), np.int32)
    start = 0  # the next class goes on where the last one ended, so that folds have equal sizes too
    for label in np.flatnonzero(counts):
        places = random.permutation(np.flatnonzero(labels == label))
        drawn[places] = (start + np.arange(len(places))) % folds
        start += len(places)
    return drawn
