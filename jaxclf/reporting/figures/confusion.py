"""Which classes are taken for which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 100  # classes in a matrix that is shown: of more, nothing could be read
COUNTED = 20  # most classes whose counts fit into the squares
DARK = 0.6  # shade from which on a count is written in white
REDDEST = 0.75  # shade of the largest confusion


def confusion_figure(matrix: np.ndarray, class_names: Sequence[str], title: str = "") -> Figure:
    """Counts [true, found] of a class a row: blue what is right, as a share of the row, red what is taken for another.

    Red is deepest at the largest share that is taken for one other class.
    """
    from matplotlib.figure import Figure

    classes = len(class_names)
    shares = signed_shares(matrix)
    side = max(4.0, 0.45 * min(classes, 40)) + 1
    figure = Figure(figsize=(side, side), layout="constrained")
    axis = figure.subplots()
    axis.imshow(shares, cmap="RdBu", vmin=-1, vmax=1)
    axis.set_title(title, parse_math=False)
    axis.set(xlabel="found", ylabel="true")
    turned = 0 if max(map(len, class_names)) < 3 else 90
    axis.set_xticks(range(classes), class_names, rotation=turned, fontsize=8, parse_math=False)
    axis.set_yticks(range(classes), class_names, fontsize=8, parse_math=False)
    if classes <= COUNTED:
        for true, found in np.argwhere(matrix):
            color = "white" if abs(shares[true, found]) > DARK else "black"
            count = f"{matrix[true, found]:,}"
            # They are inside anyway, and measuring each takes the layout a third of its time.
            axis.text(found, true, count, ha="center", va="center", fontsize=7, color=color, in_layout=False)
    return figure


def signed_shares(matrix: np.ndarray) -> np.ndarray:
    """What each row has of its images on the diagonal, above zero; elsewhere below, against the largest such share."""
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    wrong = shares * ~np.eye(len(matrix), dtype=bool)
    return (shares - wrong) - REDDEST * wrong / max(wrong.max(), 1e-9)
