"""Pictures: pure functions from arrays to a matplotlib Figure, or to pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jaxclf.files import whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure, FigureBase

# A bluish green and a red that differ in lightness too, for every kind of colour vision; titles say it as well.
RIGHT, WRONG = "#009e73", "#c1121f"
FRAME = 3.0  # points
CELL = 0.75  # inches, a map in a grid
SIGNED = "RdBu_r"  # red raises, blue lowers: told apart by every kind of colour vision
SHADES = 33  # of a map of pixels; odd, so that zero has its own, and few, so that pictures of noise stay small
BROAD = 12  # characters of a column's name on a line
CLIPPED = 99  # percentile of the sizes of a map's values where its colours end


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


def show_image(axis, image: np.ndarray) -> None:
    """Draw one image [h, w, c], grey or colour, black to white over the whole range of its dtype."""
    highest = 255 if np.issubdtype(image.dtype, np.integer) else 1
    grey = image.shape[-1] == 1
    axis.imshow(image[..., 0] if grey else image, cmap="gray" if grey else None, vmin=0, vmax=highest)


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


def name_rows_and_columns(rows: np.ndarray, row_names: Sequence[str], column_names: Sequence[str]) -> None:
    """Write the name of each row of axes on its left, and that of each column on top."""
    for row, name in zip(rows, row_names, strict=True):
        row[0].set_ylabel(name, fontsize=9, rotation=0, ha="right", va="center", parse_math=False)
    names = [fill(name, BROAD, break_long_words=False) for name in column_names]
    broad = max(len(line) for name in names for line in name.split("\n")) > BROAD
    for axis, name in zip(rows[0], names, strict=True):
        axis.set_title(name, fontsize=8, parse_math=False, rotation=90 if broad else 0)


def frame(axis, color: str) -> None:
    """Draw the frame of an axis in a colour."""
    for spine in axis.spines.values():
        spine.set(color=color, linewidth=FRAME)


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as a picture, whole; gives back the path."""
    with whole(path) as partial:
        figure.savefig(partial, dpi=120)
    return path
