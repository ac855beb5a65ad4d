"""What a network has learnt, and what becomes of an image in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from jaxclf.reporting.figures.axes import show_image
from jaxclf.reporting.figures.examples import grid_shape
from jaxclf.reporting.figures.maps import SIGNED, colour_limit

if TYPE_CHECKING:
    from matplotlib.figure import Figure, FigureBase

MOST = 64  # filters or maps of a layer that are shown


def weight_images(weights: np.ndarray, class_names: Sequence[str]) -> Figure:
    """The weights [h, w, c, classes] of a linear classifier as an image a class; red raises its score, blue lowers it.

    Channels are summed. All share one scale, whose ends are printed.
    """
    from matplotlib.figure import Figure

    maps = np.moveaxis(weights.sum(axis=2), -1, 0)
    limit = colour_limit(maps)
    rows, columns = (2, 5) if len(maps) == 10 else grid_shape(len(maps))
    figure = Figure(figsize=(1.5 * columns, 1.7 * rows + 0.6), layout="constrained")
    figure.suptitle(f"Weights, {len(maps)} times {list(maps.shape[1:])}: red raises, blue lowers, ± {limit:.2g}")
    axes = figure.subplots(rows, columns, squeeze=False)
    draw_signed(axes, maps, limit)
    for axis, name in zip(axes.flat, class_names, strict=False):
        axis.set_title(name, fontsize=10, parse_math=False)
    return figure


def image_flow(image: np.ndarray, filters: Mapping[str, np.ndarray], maps: Mapping[str, np.ndarray]) -> Figure:
    """An image [h, w, c] on its way through convolutions: a row a layer, its filters beside what it makes of the image.

    Filters are [k, k, inputs, outputs], of which those of the first input are shown; maps are [h, w, outputs].
    Each grid has a scale of its own: red is above zero, blue below.
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
        draw_stack(left, kernel[:, :, 0], f"{name}: filters {list(kernel.shape)}, of the first input")
        draw_stack(right, of_layer, f"{name}: maps {list(of_layer.shape)}; red above zero, blue below")
    return figure


def draw_stack(figure: FigureBase, stack: np.ndarray, title: str) -> None:
    """The last axis of [h, w, n] side by side; more than a screenful are cut."""
    shown = np.moveaxis(stack[..., :MOST], -1, 0)
    more = f" (the first {MOST})" if stack.shape[-1] > MOST else ""
    figure.suptitle(title + more, fontsize=9, parse_math=False)
    draw_signed(figure.subplots(*grid_shape(len(shown)), squeeze=False), shown, float(np.abs(shown).max()) or 1.0)


def draw_signed(axes: np.ndarray, maps: np.ndarray, limit: float) -> None:
    """Maps [n, h, w] on axes, in colours that tell a sign; what is left of the axes is empty."""
    for axis in axes.flat[len(maps) :]:
        axis.set_axis_off()
    for axis, values in zip(axes.flat, maps, strict=False):
        axis.set(xticks=[], yticks=[])
        axis.imshow(values, cmap=SIGNED, vmin=-limit, vmax=limit)
