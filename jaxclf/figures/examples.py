"""Grids of images and of predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jaxclf.figures.axes import RIGHT, WRONG, draw_frame, show_image
from jaxclf.figures.text import shorten_names

if TYPE_CHECKING:
    from matplotlib.figure import Figure, FigureBase


def tile(images: np.ndarray, gap: int = 2, fill: float = 0) -> np.ndarray:
    """Tile images into one image.

    Args:
        images: Images [n, h, w, c].
        gap: Pixels between them.
        fill: Value of those pixels.

    Returns:
        An image [h', w', c] of the same dtype, a square grid.
    """
    n, h, w, c = images.shape
    rows, columns = compute_grid_shape(n)
    picture = np.full((rows * (h + gap) - gap, columns * (w + gap) - gap, c), fill, images.dtype)
    for i, image in enumerate(images):
        y, x = i // columns * (h + gap), i % columns * (w + gap)
        picture[y : y + h, x : x + w] = image
    return picture


def plot_image_grid(
    images: np.ndarray, titles: Sequence[str] = (), colors: Sequence[str] = (), title: str = ""
) -> Figure:
    """Plot images in a square grid.

    Args:
        images: Images [n, h, w, c].
        titles: A title for each image.
        colors: A frame color for each image.
        title: Title of the figure.

    Returns:
        The figure.
    """
    from matplotlib.figure import Figure

    rows, columns = compute_grid_shape(len(images))
    figure = Figure(figsize=(1.7 * columns, (1.9 if titles else 1.7) * rows + 0.5), layout="constrained")
    _draw_grid(figure, images, titles, colors, title)
    return figure


def plot_augmented(images: np.ndarray, augmented: Sequence[np.ndarray], title: str = "") -> Figure:
    """Plot images, each beside what augmentations make of it.

    Args:
        images: Images [n, h, w, c].
        augmented: Arrays [n, h', w', c]: the images, augmented several times.
        title: Title of the figure.

    Returns:
        The figure, with a row for each image.
    """
    from matplotlib.figure import Figure

    columns = [images, *augmented]
    figure = Figure(figsize=(1.3 * len(columns), 1.35 * len(images) + 0.7), layout="constrained")
    figure.suptitle(title, parse_math=False)
    for row, axes in enumerate(figure.subplots(len(images), len(columns), squeeze=False)):
        for axis, column in zip(axes, columns, strict=True):
            axis.set(xticks=[], yticks=[])
            show_image(axis, column[row])
        draw_frame(axes[0], RIGHT)
        axes[0].set_title("" if row else "original", fontsize=10)
    return figure


def compute_grid_shape(n: int) -> tuple[int, int]:
    """Return the rows and columns of a square grid of n cells."""
    columns = max(1, int(np.ceil(np.sqrt(n))))
    return max(1, -(-n // columns)), columns


def _draw_grid(
    figure: FigureBase, images: np.ndarray, titles: Sequence[str], colors: Sequence[str], title: str
) -> None:
    """Draw a grid of images on a figure or a subfigure."""
    if title:
        figure.suptitle(title, parse_math=False)
    rows, columns = compute_grid_shape(len(images))
    axes = figure.subplots(rows, columns, squeeze=False)
    for i, axis in enumerate(axes.flat):
        axis.set(xticks=[], yticks=[])
        if i >= len(images):
            axis.set_axis_off()
            continue
        show_image(axis, images[i])
        if i < len(titles):
            axis.set_title(titles[i], fontsize=10, parse_math=False)
        if i < len(colors):
            draw_frame(axis, colors[i])


def plot_prediction_grid(
    images: np.ndarray,
    labels: np.ndarray,
    predictions: np.ndarray,
    class_names: Sequence[str],
    title: str = "",
) -> Figure:
    """Plot images with their predicted class: in green frames if it is correct, in red ones with the true class if not.

    Args:
        images: Images [n, h, w, c].
        labels: True classes [n].
        predictions: Predicted classes [n].
        class_names: Names of the classes.
        title: Title of the figure.

    Returns:
        The figure.
    """
    return plot_image_grid(images, *describe_predictions(labels, predictions, class_names), title)


def describe_predictions(
    labels: np.ndarray, predictions: np.ndarray, class_names: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Return a title and a frame color for each prediction."""
    names = shorten_names(class_names)
    titles = [
        names[predicted] if predicted == label else f"{names[predicted]},\ntrue {names[label]}"
        for predicted, label in zip(predictions, labels, strict=True)
    ]
    return titles, [RIGHT if correct else WRONG for correct in predictions == labels]


class PredictedImages(NamedTuple):
    """Images with their true and predicted classes."""

    images: np.ndarray
    """[n, h, w, c]."""
    labels: np.ndarray
    """True classes [n]."""
    predictions: np.ndarray
    """Predicted classes [n]."""


def plot_seen_and_unseen(
    seen: PredictedImages, unseen: PredictedImages, class_names: Sequence[str], titles: tuple[str, str]
) -> Figure:
    """Plot predictions on training images beside predictions on other images.

    Args:
        seen: Training images.
        unseen: Other images.
        class_names: Names of the classes.
        titles: Titles of the two grids.

    Returns:
        The figure.
    """
    from matplotlib.figure import Figure

    rows, columns = compute_grid_shape(max(len(seen.images), len(unseen.images)))
    figure = Figure(figsize=(3.6 * columns, 2.1 * rows + 0.6), layout="constrained")
    left, right = figure.subfigures(1, 2, wspace=0.06, squeeze=False)[0]
    for part, predicted, title in zip((left, right), (seen, unseen), titles, strict=True):
        described = describe_predictions(predicted.labels, predicted.predictions, class_names)
        _draw_grid(part, predicted.images, *described, title)
    return figure


def plot_one_hot(image: np.ndarray, label: int, class_names: Sequence[str]) -> Figure:
    """Plot an image beside its one-hot vector.

    Args:
        image: The image [h, w, c].
        label: Its class.
        class_names: Names of the classes.

    Returns:
        The figure.
    """
    from matplotlib.figure import Figure

    class_names = shorten_names(class_names)
    figure = Figure(figsize=(7, 3), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 2))
    show_image(left, image)
    left.set(xticks=[], yticks=[])
    left.set_title(class_names[label], parse_math=False)
    one_hot = np.eye(len(class_names), dtype=int)[label]
    right.bar(range(len(class_names)), one_hot, color=[RIGHT if on else "0.8" for on in one_hot])
    few = len(class_names) <= 30
    right.set(title=str(one_hot.tolist()) if few else f"1 at {label}, 0 elsewhere", yticks=(0, 1))
    if few:
        rotation = 0 if max(map(len, class_names)) < 3 else 90
        right.set_xticks(range(len(class_names)), class_names, rotation=rotation, parse_math=False)
    return figure
