"""Confusion matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from jaxclf.figures.text import shorten_names

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from scipy.sparse import csr_array

MAX_CLASSES = 100  # larger matrices are not drawn: nothing could be read
MAX_COUNTED = 20  # classes up to which counts fit into the cells
DARK = 0.6  # shade from which a count is written in white
DEEPEST_RED = 0.75  # shade of the largest confusion


def count_confusions(labels: np.ndarray, predictions: np.ndarray, classes: int) -> csr_array:
    """Count predictions by true and predicted class.

    The matrix is sparse: a dense one of 10,000 classes takes 800 MB, whatever the number of predictions.

    Args:
        labels: True classes [n].
        predictions: Predicted classes [n].
        classes: Number of classes.

    Returns:
        The confusion matrix [true, predicted] as int64.
    """
    from scipy.sparse import coo_array

    ones = np.ones(len(labels), np.int64)
    return coo_array((ones, (labels, predictions)), shape=(classes, classes)).tocsr()


def plot_confusion_matrix(matrix: np.ndarray, class_names: Sequence[str], title: str = "") -> Figure:
    """Plot a confusion matrix.

    Correct predictions are blue, by their proportion of the row; errors are red, relative to the largest proportion
    of a row that was predicted as one other class.

    Args:
        matrix: Counts [true, predicted].
        class_names: Names of the classes.
        title: Title of the figure.

    Returns:
        The figure.
    """
    from matplotlib.figure import Figure

    classes, class_names = len(class_names), shorten_names(class_names)
    shades = compute_cell_shades(matrix)
    side = max(4.0, 0.45 * min(classes, 40)) + 1
    figure = Figure(figsize=(side, side), layout="constrained")
    axis = figure.subplots()
    axis.imshow(shades, cmap="RdBu", vmin=-1, vmax=1)
    axis.set_title(title, parse_math=False)
    axis.set(xlabel="predicted", ylabel="true")
    rotation = 0 if max(map(len, class_names)) < 3 else 90
    axis.set_xticks(range(classes), class_names, rotation=rotation, fontsize=8, parse_math=False)
    axis.set_yticks(range(classes), class_names, fontsize=8, parse_math=False)
    if classes <= MAX_COUNTED:
        for true, predicted in np.argwhere(matrix):
            color = "white" if abs(shades[true, predicted]) > DARK else "black"
            count = f"{matrix[true, predicted]:,}"
            # in_layout=False: they are inside anyway, and measuring each takes a third of the layout's time.
            axis.text(predicted, true, count, ha="center", va="center", fontsize=7, color=color, in_layout=False)
    return figure


def compute_cell_shades(matrix: np.ndarray) -> np.ndarray:
    """Compute the color of each cell of a confusion matrix.

    Args:
        matrix: Counts [true, predicted].

    Returns:
        Shades [true, predicted]: from 0 to 1 on the diagonal, from 0 down to -0.75 elsewhere.
    """
    proportions = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    errors = proportions * ~np.eye(len(matrix), dtype=bool)
    return (proportions - errors) - DEEPEST_RED * errors / max(errors.max(), 1e-9)
