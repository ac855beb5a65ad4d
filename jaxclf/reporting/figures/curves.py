"""Numbers against steps and learning rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxclf.reporting.figures.axes import WRONG, frame, show_image

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours and marks that differ for every kind of colour vision: M. Okabe and K. Ito, "Color Universal Design" (2008).
CURVES = {
    ("train", "interval"): ("training, running", {"color": "0.65", "linewidth": 1}),
    ("train_full", "epoch"): ("training images", {"color": "#e69f00", "marker": "s", "markersize": 4}),
    ("validation", "epoch"): ("validation", {"color": "#0072b2", "marker": "o", "markersize": 4}),
    ("test", "epoch"): ("test", {"color": "#009e73", "marker": "D", "markersize": 5, "linestyle": "none"}),
}
Rows = Sequence[Mapping[str, Any]]  # of metrics.jsonl


def training_curves(rows: Rows, title: str = "") -> Figure:
    """Accuracy and loss against epochs, of each split that `rows` of metrics.jsonl have."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    figure.suptitle(title, parse_math=False)
    for axis, measure in zip(figure.subplots(1, 2), ("accuracy", "loss"), strict=True):
        draw_curves(axis, rows, measure)
    return figure


def draw_curves(axis: Axes, rows: Rows, measure: str) -> None:
    """One measure of every split against epochs. What is absent or was not finite is left out."""
    for (split, period), (name, style) in CURVES.items():
        known = points(rows, split, period, measure)
        if known:
            axis.plot(*zip(*known, strict=True), label=name, **style)
    axis.set(xlabel="epoch", ylabel=measure)
    axis.grid(alpha=0.3)
    if axis.lines:
        axis.legend(fontsize=8)


def points(rows: Rows, split: str, period: str, measure: str) -> list[tuple[float, float]]:
    """Epochs and a measure of one split, but for rows that do not have it or in which it was not finite."""
    of_split = [row for row in rows if (row["split"], row["period"]) == (split, period)]
    return [(float(row["epoch"]), row[measure]) for row in of_split if row.get(measure) is not None]


def curve_and_mistake(
    rows: Rows, image: np.ndarray, found: str, true: str, measure: str = "accuracy", title: str = ""
) -> Figure:
    """A curve of training beside an image [h, w, c] that is found to be what it is not."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.6), layout="constrained")
    figure.suptitle(title, parse_math=False)
    left, right = figure.subplots(1, 2, width_ratios=(2, 1))
    draw_curves(left, rows, measure)
    show_image(right, image)
    right.set(xticks=[], yticks=[])
    right.set_title(f"found {found},\ntrue {true}", parse_math=False)
    frame(right, WRONG)
    return figure


def learning_rate_curve(
    rates: np.ndarray, losses: np.ndarray, smoothed: np.ndarray, marks: Mapping[str, float], title: str
) -> Figure:
    """The loss of each step, and smoothed, against its learning rate; two rates are marked by name."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axis = figure.subplots()
    axis.plot(rates, losses, ".", color="0.75", markersize=3, label="of a batch")
    axis.plot(rates, smoothed, color="#0072b2", label="smoothed")
    for (name, rate), style in zip(marks.items(), ("--", ":"), strict=True):
        axis.axvline(rate, color="0.3", linestyle=style, label=f"{name}: {rate:.2g}")
    # What is above the first loss is not worth the room: it rises without end.
    axis.set(xscale="log", xlabel="learning rate", ylabel="loss", ylim=(0, 1.3 * smoothed[0]))
    axis.set_title(title, parse_math=False)
    axis.legend(loc="lower left")
    return figure
