"""Saliency maps and gradients in diverging colors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np

from jaxclf.figures.axes import RIGHT, WRONG, draw_frame, show_image
from jaxclf.figures.examples import describe_predictions
from jaxclf.figures.text import shorten_names

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CELL = 0.75  # inches of a map in a grid
SIGNED = "RdBu_r"  # red raises, blue lowers: color-blind readers can tell them apart
SHADES = 33  # odd, so that zero has its own; few, so that PNGs of noisy maps stay small
LINE = 12  # characters of a column title on a line
CLIPPED = 99  # percentile of the absolute values at which the colors saturate


def plot_gradient_study(
    images: np.ndarray,
    labels: np.ndarray,
    predictions: np.ndarray,
    gradients: np.ndarray,
    classes: Sequence[int],
    class_names: Sequence[str],
) -> Figure:
    """Plot gradients of class probabilities with respect to the pixels, one row per image.

    Each row shows the image, the gradient of the highest probability, and those of some classes, which share one color
    scale. The predicted class has a green frame if it is correct and a red one if not.

    Args:
        images: Images [n, h, w, c].
        labels: True classes [n].
        predictions: Predicted classes [n].
        gradients: Gradients [n, 1 + classes, h, w, c]; channels are summed.
        classes: The classes of the gradients after the first.
        class_names: Names of all classes.

    Returns:
        The figure.
    """
    from matplotlib.figure import Figure

    maps = gradients.sum(axis=-1)
    limits = [[get_color_limit(row[0]), *[get_color_limit(row[1:])] * (len(row) - 1)] for row in maps]
    ranges = [[(-limit, limit) for limit in row] for row in limits]
    figure = Figure(figsize=(CELL * (maps.shape[1] + 2.5), CELL * len(images) + 0.8), layout="constrained")
    figure.suptitle("Gradients of class probabilities: red raises, blue lowers, one scale per row")
    rows = figure.subplots(len(images), 1 + maps.shape[1], squeeze=False)
    draw_maps(rows, images, maps, ranges)
    names = shorten_names(class_names)
    annotate_grid(rows, [names[label] for label in labels], ("image", "max grad", *(names[label] for label in classes)))
    for row, row_limits, label, predicted in zip(rows, limits, labels, predictions, strict=True):
        row[-1].yaxis.set_label_position("right")
        row[-1].set_ylabel(f"± {row_limits[-1]:.2g}", fontsize=8, rotation=0, ha="left", va="center")
        if predicted in classes:
            draw_frame(row[2 + list(classes).index(predicted)], RIGHT if predicted == label else WRONG)
    return figure


def plot_explanation_grid(
    images: np.ndarray,
    labels: np.ndarray,
    predictions: np.ndarray,
    maps: Mapping[str, np.ndarray],
    class_names: Sequence[str],
) -> Figure:
    """Plot saliency maps, one row per image and one column per method; each map has its own color scale.

    Args:
        images: Images [n, h, w, c]. Frames are green if the prediction is correct and red if not.
        labels: True classes [n].
        predictions: Predicted classes [n].
        maps: Maps [n, h', w', c'] by method, of the size of the images or smaller; channels are summed.
        class_names: Names of the classes.

    Returns:
        The figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(CELL * (len(maps) + 2.5), CELL * len(images) + 0.8), layout="constrained")
    rows = figure.subplots(len(images), 1 + len(maps), squeeze=False)
    summed = [[of_method[i].sum(axis=-1) for of_method in maps.values()] for i in range(len(images))]
    draw_maps(rows, images, summed, [[get_color_range(values) for values in row] for row in summed])
    titles, colors = describe_predictions(labels, predictions, class_names)
    annotate_grid(rows, titles, ("image", *maps))
    for row, color in zip(rows, colors, strict=True):
        draw_frame(row[0], color)
    return figure


def plot_explanation_strip(images: np.ndarray, maps: np.ndarray, title: str) -> Figure:
    """Plot images side by side, each above its saliency map.

    Args:
        images: Images [n, h, w, c].
        maps: Maps [n, h', w', c']; channels are summed.
        title: Title of the figure.

    Returns:
        The figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(CELL * len(images) + 0.5, 2 * CELL + 0.4), layout="constrained")
    figure.suptitle(title, parse_math=False, fontsize=10)
    summed = [[values.sum(axis=-1)] for values in maps]
    columns = figure.subplots(2, len(images), squeeze=False).T
    draw_maps(columns, images, summed, [[get_color_range(row[0])] for row in summed])
    return figure


def draw_maps(
    rows: np.ndarray,
    images: np.ndarray,
    maps: Sequence[Sequence[np.ndarray]] | np.ndarray,
    ranges: Sequence[Sequence[tuple[float, float]]],
) -> None:
    """Draw each image [h, w, c] followed by its maps [h', w'] on axes [n, 1 + maps].

    White is the middle of each map's range. Maps smaller than the image are upsampled bilinearly.
    """
    from matplotlib import colormaps

    height, width = images.shape[1:3]
    few = colormaps[SIGNED].resampled(SHADES)
    for axis in rows.flat:
        axis.set(xticks=[], yticks=[])
    for row, image, of_image, of_row in zip(rows, images, maps, ranges, strict=True):
        show_image(row[0], image)
        for axis, values, (low, high) in zip(row[1:], of_image, of_row, strict=True):
            colors, interpolation = (few, "nearest") if values.shape == (height, width) else (SIGNED, "bilinear")
            extent = (-0.5, width - 0.5, height - 0.5, -0.5)
            axis.imshow(values, cmap=colors, vmin=low, vmax=high, extent=extent, interpolation=interpolation)


def get_color_limit(values: np.ndarray) -> float:
    """Return the absolute value at which colors saturate. A percentile: a few large values must not fade the others."""
    sizes = np.abs(values)
    return float(np.percentile(sizes, CLIPPED)) or float(sizes.max()) or 1.0


def get_color_range(values: np.ndarray) -> tuple[float, float]:
    """Return the values of the first and last color: white is zero or, for a positive map, its minimum."""
    limit, least = get_color_limit(values), float(values.min())
    return (2 * least - limit, limit) if 0 < least < limit else (-limit, limit)


def compute_color_strength(values: np.ndarray) -> np.ndarray:
    """Return the color of each pixel of a map [h, w, c] as [h, w] from -1, blue, to 1, red; channels are summed."""
    summed = values.sum(axis=-1)
    low, high = get_color_range(summed)
    return np.clip((2 * summed - high - low) / (high - low), -1, 1).astype(np.float32)


def annotate_grid(rows: np.ndarray, row_names: Sequence[str], column_names: Sequence[str]) -> None:
    """Label each row of axes on its left and each column on top."""
    for row, name in zip(rows, row_names, strict=True):
        row[0].set_ylabel(name, fontsize=9, rotation=0, ha="right", va="center", parse_math=False)
    names = [fill(name, LINE, break_long_words=False) for name in column_names]
    long = max(len(line) for name in names for line in name.split("\n")) > LINE
    for axis, name in zip(rows[0], names, strict=True):
        axis.set_title(name, fontsize=8, parse_math=False, rotation=90 if long else 0)
