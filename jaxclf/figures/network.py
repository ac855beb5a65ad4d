"""Weights and feature maps of a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from jaxclf.figures.axes import show_image
from jaxclf.figures.examples import compute_grid_shape, tile
from jaxclf.figures.maps import SIGNED, get_color_limit
from jaxclf.figures.text import shorten_names

if TYPE_CHECKING:
    from matplotlib.figure import Figure, FigureBase

MAX_MAPS = 64  # of a layer


def plot_weights(weights: np.ndarray, class_names: Sequence[str]) -> Figure:
    """Plot the weights of a linear classifier as one image per class: red raises its score, blue lowers it.

    Args:
        weights: Weights [h, w, c, classes]; channels are summed.
        class_names: Names of the classes.

    Returns:
        The figure. All images share one color scale, whose ends are in the title.
    """
    from matplotlib.figure import Figure

    maps = np.moveaxis(weights.sum(axis=2), -1, 0)
    limit = get_color_limit(maps)
    rows, columns = (2, 5) if len(maps) == 10 else compute_grid_shape(len(maps))
    figure = Figure(figsize=(1.5 * columns, 1.7 * rows + 0.6), layout="constrained")
    figure.suptitle(
        f"Weights of {len(maps)} classes, {list(maps.shape[1:])} each: red raises, blue lowers, ± {limit:.2g}"
    )
    axes = figure.subplots(rows, columns, squeeze=False)
    _draw_signed(axes, maps, limit)
    for axis, name in zip(axes.flat, shorten_names(class_names), strict=False):
        axis.set_title(name, fontsize=10, parse_math=False)
    return figure


def plot_image_flow(image: np.ndarray, filters: Mapping[str, np.ndarray], maps: Mapping[str, np.ndarray]) -> Figure:
    """Plot the filters and feature maps of an image in each convolution, one row per layer.

    Args:
        image: The image [h, w, c].
        filters: Filters [k, k, inputs, outputs] by layer; those of the first input are shown.
        maps: Feature maps [h, w, outputs] by layer.

    Returns:
        The figure. Each grid has its own color scale: red is positive, blue negative.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2 + 3.6 * len(maps)), layout="constrained")
    top, *rows = figure.subfigures(1 + len(maps), 1, height_ratios=(1.6, *[3.6] * len(maps)), squeeze=False)[:, 0]
    axis = top.subplots()
    show_image(axis, image)
    axis.set(xticks=[], yticks=[])
    axis.set_title(f"image {list(image.shape)}", fontsize=10)
    for row, (name, of_layer) in zip(rows, maps.items(), strict=True):
        kernel = filters[name]
        left, right = row.subfigures(1, 2)
        _draw_stack(left, kernel[:, :, 0], f"{name}: filters {list(kernel.shape)}, first input channel")
        _draw_stack(right, of_layer, f"{name}: feature maps {list(of_layer.shape)}; red positive, blue negative")
    return figure


def _draw_stack(figure: FigureBase, stack: np.ndarray, title: str) -> None:
    """Draw the slices of [h, w, n] along the last axis in a grid, at most 64 of them."""
    shown = np.moveaxis(stack[..., :MAX_MAPS], -1, 0)
    more = f" (first {MAX_MAPS})" if stack.shape[-1] > MAX_MAPS else ""
    figure.suptitle(title + more, fontsize=9, parse_math=False)
    axis = figure.subplots()
    axis.set_axis_off()
    # One axis for the grid: to lay out an axis for each of 64 maps takes seconds. NaN is not drawn.
    grid = tile(shown[..., None], gap=max(1, max(shown.shape[1:]) // 8), fill=np.nan)[..., 0]
    limit = float(np.abs(shown).max()) or 1.0
    axis.imshow(grid, cmap=SIGNED, vmin=-limit, vmax=limit)


def _draw_signed(axes: np.ndarray, maps: np.ndarray, limit: float) -> None:
    """Draw maps [n, h, w] in diverging colors, one per axis; further axes are switched off."""
    for axis in axes.flat[len(maps) :]:
        axis.set_axis_off()
    for axis, values in zip(axes.flat, maps, strict=False):
        axis.set(xticks=[], yticks=[])
        axis.imshow(values, cmap=SIGNED, vmin=-limit, vmax=limit)
