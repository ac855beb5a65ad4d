"""Images in grids: what they are, and whether they are found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jaxclf.reporting.figures.axes import RIGHT, WRONG, frame, show_image

if TYPE_CHECKING:
    from matplotlib.figure import Figure, FigureBase


def tile(images: np.ndarray, gap: int = 2) -> np.ndarray:
    """Images [n, h, w, c] side by side in a square grid, as one picture of the same dtype."""
    n, h, w, c = images.shape
    rows, columns = grid_shape(n)
    picture = np.zeros((rows * (h + gap) - gap, columns * (w + gap) - gap, c), images.dtype)
    for i, image in enumerate(images):
        y, x = i // columns * (h + gap), i % columns * (w + gap)
        picture[y : y + h, x : x + w] = image
    return picture


def image_grid(images: np.ndarray, titles: Sequence[str] = (), colors: Sequence[str] = (), title: str = "") -> Figure:
    """Images [n, h, w, c] in a square grid, each under its title and in a frame of its colour."""
    from matplotlib.figure import Figure

    rows, columns = grid_shape(len(images))
    figure = Figure(figsize=(1.7 * columns, (1.9 if titles else 1.7) * rows + 0.5), layout="constrained")
    draw_grid(figure, images, titles, colors, title)
    return figure


def grid_shape(n: int) -> tuple[int, int]:
    """Rows and columns of a square grid of n."""
    columns = max(1, int(np.ceil(np.sqrt(n))))
    return max(1, -(-n // columns)), columns


def draw_grid(figure: FigureBase, images: np.ndarray, titles: Sequence[str], colors: Sequence[str], title: str) -> None:
    """Draw a grid of images on a figure, or on a part of one."""
    if title:
        figure.suptitle(title, parse_math=False)
    rows, columns = grid_shape(len(images))
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
            frame(axis, colors[i])


def prediction_grid(
    images: np.ndarray,
    labels: np.ndarray,
    predictions: np.ndarray,
    class_names: Sequence[str],
    title: str = "",
) -> Figure:
    """What was found, framed green where it is right; red, with the true label, where it is wrong."""
    return image_grid(images, *judge(labels, predictions, class_names), title)


def judge(labels: np.ndarray, predictions: np.ndarray, class_names: Sequence[str]) -> tuple[list[str], list[str]]:
    """A title and a colour for each prediction."""
    right = predictions == labels
    titles = [
        f"{class_names[found]}" if ok else f"{class_names[found]},\ntrue {class_names[label]}"
        for found, label, ok in zip(predictions, labels, right, strict=True)
    ]
    return titles, [RIGHT if ok else WRONG for ok in right]


class Judged(NamedTuple):
    """Images [n, h, w, c], what they are and what was found."""

    images: np.ndarray
    labels: np.ndarray
    predictions: np.ndarray


def seen_and_unseen(seen: Judged, unseen: Judged, class_names: Sequence[str], titles: tuple[str, str]) -> Figure:
    """Predictions on images of training beside predictions on others, framed green and red."""
    from matplotlib.figure import Figure

    rows, columns = grid_shape(max(len(seen.images), len(unseen.images)))
    figure = Figure(figsize=(3.6 * columns, 2.1 * rows + 0.6), layout="constrained")
    left, right = figure.subfigures(1, 2, wspace=0.06, squeeze=False)[0]
    for part, judged, title in zip((left, right), (seen, unseen), titles, strict=True):
        draw_grid(part, judged.images, *judge(judged.labels, judged.predictions, class_names), title)
    return figure


def one_hot_figure(image: np.ndarray, label: int, class_names: Sequence[str]) -> Figure:
    """One image beside its one-hot vector."""
    from matplotlib.figure import Figure

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
