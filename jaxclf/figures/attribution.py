"""Saliency maps of a few images, beside and over them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from jaxclf.figures.maps import annotate_grid, draw_maps, get_color_range
from jaxclf.figures.overlay import overlay_map

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SMALL = 0.9  # inches of the longer side of an image
LARGE = 2.2  # of one with more than SHARP pixels on a side
SHARP = 64


def plot_attribution(
    images: np.ndarray, maps: np.ndarray, row_names: Sequence[str], column_names: Sequence[str]
) -> Figure:
    """Plot images beside their saliency maps, one row per image; a single map is shown over the image, too.

    All maps of an image have the same colors: red raises the score, blue lowers it.

    Args:
        images: Images [n, h, w, c], gray or color, integers or floats in [0, 1].
        maps: Maps [n, maps, h', w', c']; channels are summed.
        row_names: A text for each image.
        column_names: A text for each map of an image.

    Returns:
        The figure.
    """
    from matplotlib.figure import Figure

    height, width = images.shape[1:3]
    side = (LARGE if max(height, width) > SHARP else SMALL) / max(height, width)
    overlaid = maps.shape[1] == 1
    columns = 1 + maps.shape[1] + overlaid
    size = (side * width * columns + 1.4, side * height * len(images) + 0.4)
    figure = Figure(figsize=size, layout="constrained")
    rows = figure.subplots(len(images), columns, squeeze=False)
    summed = maps.sum(axis=-1)
    ranges = [[get_color_range(of_image)] * len(of_image) for of_image in summed]
    draw_maps(rows[:, : columns - overlaid], images, summed, ranges)
    annotate_grid(rows, row_names, ("image", *column_names, *["overlay"] * overlaid))
    for row, image, of_image, ((low, high), *_) in zip(rows, images, maps, ranges, strict=True):
        row[-1].yaxis.set_label_position("right")
        text = f"± {high:.2g}" if low == -high else f"{(low + high) / 2:.2g} to\n{high:.2g}"
        row[-1].set_ylabel(text, fontsize=8, rotation=0, ha="left", va="center")
        if overlaid:
            row[-1].set(xticks=[], yticks=[])
            row[-1].imshow(overlay_map(image, of_image[0]))
    return figure
