"""Curves of training, learning rates and calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxclf.figures.axes import WRONG, draw_frame, show_image

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE = "#0072b2"
# Colors and markers that color-blind readers can tell apart: M. Okabe and K. Ito, "Color Universal Design" (2008).
SPLIT_STYLES = {
    ("train", "interval"): ("training, running", {"color": "0.65", "linewidth": 1}),
    ("train_full", "epoch"): ("training images", {"color": "#e69f00", "marker": "s", "markersize": 4}),
    ("validation", "epoch"): ("validation", {"color": BLUE, "marker": "o", "markersize": 4}),
    ("test", "epoch"): ("test", {"color": "#009e73", "marker": "D", "markersize": 5, "linestyle": "none"}),
}
Rows = Sequence[Mapping[str, Any]]  # of metrics.jsonl


class Reliability(NamedTuple):
    """Examples grouped by confidence, in bins of equal width from 0 to 1. The means of an empty bin are NaN."""

    examples: Int[np.ndarray, " bins"]
    """Number of examples."""
    confidence: Float[np.ndarray, " bins"]
    """Mean of the highest probability."""
    accuracy: Float[np.ndarray, " bins"]
    """Proportion of correct predictions."""


class Series(NamedTuple):
    """A named line of a plot."""

    name: str
    points: Sequence[tuple[float, float]]
    style: Mapping[str, Any]
    """Arguments of matplotlib's `plot`."""


def plot_training_curves(rows: Rows, title: str = "") -> Figure:
    """Plot accuracy and loss against epochs.

    Args:
        rows: Rows of metrics.jsonl; every split that they have becomes a curve.
        title: Title of the figure.

    Returns:
        The figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    figure.suptitle(title, parse_math=False)
    for axis, measure in zip(figure.subplots(1, 2), ("accuracy", "loss"), strict=True):
        _draw_series(axis, select_series(rows, measure), measure)
    return figure


def plot_series(series: Sequence[Series], measure: str, legend: bool = True) -> Figure:
    """Plot a measure against epochs.

    Args:
        series: The lines; points are (epoch, value). Each line becomes a group with the id `series-<index>` in an SVG.
        measure: Name of the measure: the label of the y axis, which is in percent for an accuracy.
        legend: Whether the figure has a legend.

    Returns:
        The figure.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(5.6, 3), layout="constrained")
    axis = figure.subplots()
    _draw_series(axis, series, measure, legend)
    axis.set_xlim(left=0)
    axis.spines[["top", "right"]].set_visible(False)
    if measure == "accuracy":
        axis.yaxis.set_major_formatter(PercentFormatter(1))
    for i, line in enumerate(axis.lines):
        line.set_gid(f"series-{i}")
    return figure


def _draw_series(axis: Axes, series: Sequence[Series], measure: str, legend: bool = True) -> None:
    """Draw lines against epochs, with a legend."""
    for name, points, style in series:
        # A single point has no line.
        style = {"marker": "."} | dict(style) if len(points) == 1 else style
        axis.plot(*np.reshape(points, (-1, 2)).T, label=name, **style)
    axis.set(xlabel="epoch", ylabel=measure)
    axis.grid(alpha=0.3)
    if legend and series:
        axis.legend(fontsize=8)


def select_series(rows: Rows, measure: str) -> list[Series]:
    """Return one measure of every split that has it, as a line in the style of the split."""
    series = [
        Series(name, select_points(rows, split, period, measure), style)
        for (split, period), (name, style) in SPLIT_STYLES.items()
    ]
    return [each for each in series if each.points]


def select_points(rows: Rows, split: str, period: str, measure: str) -> list[tuple[float, float]]:
    """Return (epoch, value) of one measure of a split. Rows in which it is missing or not finite are left out."""
    of_split = [row for row in rows if (row["split"], row["period"]) == (split, period)]
    return [(float(row["epoch"]), row[measure]) for row in of_split if row.get(measure) is not None]


def plot_curve_and_mistake(
    rows: Rows, image: np.ndarray, predicted: str, true: str, measure: str = "accuracy", title: str = ""
) -> Figure:
    """Plot a curve of training beside a misclassified image.

    Args:
        rows: Rows of metrics.jsonl.
        image: The image [h, w, c].
        predicted: Name of the predicted class.
        true: Name of the true class.
        measure: Measure to plot.
        title: Title of the figure.

    Returns:
        The figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.6), layout="constrained")
    figure.suptitle(title, parse_math=False)
    left, right = figure.subplots(1, 2, width_ratios=(2, 1))
    _draw_series(left, select_series(rows, measure), measure)
    show_image(right, image)
    right.set(xticks=[], yticks=[])
    right.set_title(f"predicted {predicted},\ntrue {true}", parse_math=False)
    draw_frame(right, WRONG)
    return figure


def plot_learning_rate_curve(
    rates: np.ndarray, losses: np.ndarray, smoothed: np.ndarray, marks: Mapping[str, float], title: str
) -> Figure:
    """Plot the loss of each step of a learning-rate range test against its learning rate.

    Args:
        rates: Learning rate of each step.
        losses: Loss of each step.
        smoothed: Smoothed loss of each step.
        marks: Two learning rates to mark, by name.
        title: Title of the figure.

    Returns:
        The figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axis = figure.subplots()
    axis.plot(rates, losses, ".", color="0.75", markersize=3, label="batch loss")
    axis.plot(rates, smoothed, color=BLUE, label="smoothed")
    for (name, rate), style in zip(marks.items(), ("--", ":"), strict=True):
        axis.axvline(rate, color="0.3", linestyle=style, label=f"{name}: {rate:.2g}")
    # A diverging loss rises without bound; above the first loss nothing is worth showing.
    axis.set(xscale="log", xlabel="learning rate", ylabel="loss", ylim=(0, 1.3 * smoothed[0]))
    axis.set_title(title, parse_math=False)
    axis.legend(loc="lower left")
    return figure


def plot_learning_curve(accuracies: Mapping[int, np.ndarray], title: str) -> Figure:
    """Plot the accuracy against the number of training images a class.

    Args:
        accuracies: The accuracy of each seed by the number of images. The band is from the lowest to the highest.
        title: Title of the figure.

    Returns:
        The figure.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    sizes, rows = list(accuracies), list(accuracies.values())
    axis.fill_between(sizes, [min(row) for row in rows], [max(row) for row in rows], color=BLUE, alpha=0.2, linewidth=0)
    axis.plot(sizes, [np.mean(row) for row in rows], "o-", color=BLUE)
    axis.set(xscale="log", xlabel="training images a class", ylabel="test accuracy", xticks=sizes, xticklabels=sizes)
    axis.minorticks_off()
    axis.yaxis.set_major_formatter(PercentFormatter(1))
    axis.grid(axis="y", color="0.9")
    axis.set_title(title, parse_math=False)
    return figure


def plot_reliability(reliability: Reliability) -> Figure:
    """Plot a reliability diagram: accuracy against confidence, with the gap between them hatched.

    Args:
        reliability: Bins of confidence. The more examples a bin has, the darker is its bar.

    Returns:
        The figure.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    count = reliability.examples
    width = 1 / len(count)
    centers = (np.arange(len(count)) + 0.5) * width
    accuracy, confidence = np.nan_to_num(reliability.accuracy), np.nan_to_num(reliability.confidence)
    figure = Figure(figsize=(3.6, 3.6), layout="constrained")
    axis = figure.subplots()
    opacity = 0.25 + 0.65 * np.sqrt(count / max(count.max(), 1))
    axis.bar(centers, accuracy, 0.9 * width, color=[(BLUE, value) for value in opacity])
    gap, bottom = np.abs(accuracy - confidence), np.minimum(accuracy, confidence)
    axis.bar(centers, gap, 0.9 * width, bottom=bottom, fill=False, edgecolor=WRONG, hatch="////", linewidth=0.8)
    axis.plot([0, 1], [0, 1], color="0.5", linestyle="--", linewidth=1)
    axis.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="confidence", ylabel="accuracy")
    for ticks in (axis.xaxis, axis.yaxis):
        ticks.set_major_formatter(PercentFormatter(1))
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    return figure
