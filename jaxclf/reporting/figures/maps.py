"""Maps of what a network finds in images, in colours that tell a sign."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np

from jaxclf.reporting.figures.axes import RIGHT, WRONG, frame, show_image
from jaxclf.reporting.figures.examples import judge

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CELL = 0.75  # inches, a map in a grid
SIGNED = "RdBu_r"  # red raises, blue lowers: told apart by every kind of colour vision
SHADES = 33  # of a map of pixels; odd, so that zero has its own, and few, so that pictures of noise stay small
BROAD = 12  # characters of a column's name on a line
CLIPPED = 99  # percentile of the sizes of a map's values where its colours end


def gradient_study(
    images: np.ndarray,
    labels: np.ndarray,
    predictions: np.ndarray,
    gradients: np.ndarray,
    classes: Sequence[int],
    class_names: Sequence[str],
) -> Figure:
    """A row an image: the image [h, w, c], the gradient of the highest probability, and those of some classes.

    Gradients are [n, 1 + classes, h, w, c]; channels are summed. The first has colours of its own, the others share
    theirs. The class with the highest probability is framed green where it is the true one and red where it is not.
    """
    from matplotlib.figure import Figure

    maps = gradients.sum(axis=-1)
    limits = [[colour_limit(row[0]), *[colour_limit(row[1:])] * (len(row) - 1)] for row in maps]
    ranges = [[(-limit, limit) for limit in row] for row in limits]
    figure = Figure(figsize=(CELL * (maps.shape[1] + 2.5), CELL * len(images) + 0.8), layout="constrained")
    figure.suptitle("Gradients of probabilities by the pixels: red raises, blue lowers, one scale a row")
    rows = figure.subplots(len(images), 1 + maps.shape[1], squeeze=False)
    draw_maps(rows, images, maps, ranges)
    titles = ("image", "max grad", *(class_names[label] for label in classes))
    name_rows_and_columns(rows, [f"{class_names[label]}" for label in labels], titles)
    for row, row_limits, label, found in zip(rows, limits, labels, predictions, strict=True):
        row[-1].yaxis.set_label_position("right")
        row[-1].set_ylabel(f"± {row_limits[-1]:.2g}", fontsize=8, rotation=0, ha="left", va="center")
        if found in classes:
            frame(row[2 + list(classes).index(found)], RIGHT if found == label else WRONG)
    return figure


def explanation_grid(
    images: np.ndarray,
    labels: np.ndarray,
    predictions: np.ndarray,
    maps: Mapping[str, np.ndarray],
    class_names: Sequence[str],
) -> Figure:
    """A row an image: the image [h, w, c], framed green or red as it is found, then a map of each method.

    Maps are [n, h, w, c], of the size of the images or smaller; channels are summed. Each has colours of its own.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(CELL * (len(maps) + 2.5), CELL * len(images) + 0.8), layout="constrained")
    rows = figure.subplots(len(images), 1 + len(maps), squeeze=False)
    summed = [[of_method[i].sum(axis=-1) for of_method in maps.values()] for i in range(len(images))]
    draw_maps(rows, images, summed, [[colour_range(values) for values in row] for row in summed])
    titles, colors = judge(labels, predictions, class_names)
    name_rows_and_columns(rows, titles, ("image", *maps))
    for row, color in zip(rows, colors, strict=True):
        frame(row[0], color)
    return figure


def explanation_strip(images: np.ndarray, maps: np.ndarray, title: str) -> Figure:
    """Images [n, h, w, c] side by side, and under each its map [h, w, c], as in a grid."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(CELL * len(images) + 0.5, 2 * CELL + 0.4), layout="constrained")
    figure.suptitle(title, parse_math=False, fontsize=10)
    summed = [[values.sum(axis=-1)] for values in maps]
    draw_maps(
        figure.subplots(2, len(images), squeeze=False).T, images, summed, [[colour_range(row[0])] for row in summed]
    )
    return figure


def draw_maps(
    rows: np.ndarray,
    images: np.ndarray,
    maps: Sequence[Sequence[np.ndarray]] | np.ndarray,
    ranges: Sequence[Sequence[tuple[float, float]]],
) -> None:
    """Draw each image [h, w, c] and, after it, its maps [h', w'], on axes [n, 1 + maps].

    Colours run over the range of each map, with white in its middle. A map that is smaller is enlarged smoothly.
    """
    from matplotlib import colormaps

    height, width = images.shape[1:3]
    few = colormaps[SIGNED].resampled(SHADES)
    for axis in rows.flat:
        axis.set(xticks=[], yticks=[])
    for row, image, of_image, of_row in zip(rows, images, maps, ranges, strict=True):
        show_image(row[0], image)
        for axis, values, (low, high) in zip(row[1:], of_image, of_row, strict=True):
            colors, how = (few, "nearest") if values.shape == (height, width) else (SIGNED, "bilinear")
            extent = (-0.5, width - 0.5, height - 0.5, -0.5)
            axis.imshow(values, cmap=colors, vmin=low, vmax=high, extent=extent, interpolation=how)


def colour_limit(values: np.ndarray) -> float:
    """Where the colours of a map end, on both sides of zero: a few large values must not leave the others pale."""
    sizes = np.abs(values)
    return float(np.percentile(sizes, CLIPPED)) or float(sizes.max()) or 1.0


def colour_range(values: np.ndarray) -> tuple[float, float]:
    """Where the colours of a map begin and end, so that white is zero; or, of one above zero, its least value."""
    limit, least = colour_limit(values), float(values.min())
    return (2 * least - limit, limit) if 0 < least < limit else (-limit, limit)


def colour_strength(values: np.ndarray) -> np.ndarray:
    """How deep the colours of a map [h, w, c] are, [h, w] from -1 to 1. Channels are summed; they end as in a grid."""
    summed = values.sum(axis=-1)
    low, high = colour_range(summed)
    return np.clip((2 * summed - high - low) / (high - low), -1, 1).astype(np.float32)


def name_rows_and_columns(rows: np.ndarray, row_names: Sequence[str], column_names: Sequence[str]) -> None:
    """Write the name of each row of axes on its left, and that of each column on top."""
    for row, name in zip(rows, row_names, strict=True):
        row[0].set_ylabel(name, fontsize=9, rotation=0, ha="right", va="center", parse_math=False)
    names = [fill(name, BROAD, break_long_words=False) for name in column_names]
    broad = max(len(line) for name in names for line in name.split("\n")) > BROAD
    for axis, name in zip(rows[0], names, strict=True):
        axis.set_title(name, fontsize=8, parse_math=False, rotation=90 if broad else 0)
