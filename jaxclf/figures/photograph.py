"""One photograph with its predicted classes and its saliency maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from jaxclf.figures.axes import show_image
from jaxclf.figures.maps import SIGNED, get_color_range
from jaxclf.figures.overlay import overlay_map
from jaxclf.figures.text import shorten_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIDE = 2.2  # inches of an image
BARS = 5  # most probable classes


def plot_photograph(
    image: np.ndarray, probabilities: np.ndarray, maps: Mapping[str, np.ndarray], class_names: Sequence[str]
) -> Figure:
    """Plot a photograph above its most probable classes, and beside it each saliency map above its overlay.

    Args:
        image: The image [h, w, c].
        probabilities: The probability of each class [classes].
        maps: The map [h', w', c'] of each method; channels are summed. Red raises the score of the most probable class,
            blue lowers it.
        class_names: Names of the classes.

    Returns:
        The figure.
    """
    from matplotlib.figure import Figure

    height, width = image.shape[:2]
    figure = Figure(figsize=(SIDE * width / height * (1 + len(maps)) + 0.6, 2 * SIDE + 0.5), layout="constrained")
    axes = figure.subplots(2, 1 + len(maps), squeeze=False)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    show_image(axes[0, 0], image)
    _draw_bars(axes[1, 0], probabilities, class_names)
    for column, (name, values) in zip(axes.T[1:], maps.items(), strict=True):
        summed = values.sum(axis=-1)
        low, high = get_color_range(summed)
        extent = (-0.5, width - 0.5, height - 0.5, -0.5)
        column[0].imshow(summed, cmap=SIGNED, vmin=low, vmax=high, extent=extent, interpolation="bilinear")
        column[0].set_title(name, fontsize=9, parse_math=False)
        column[1].imshow(overlay_map(image, values))
    return figure


def _draw_bars(axis: Axes, probabilities: np.ndarray, class_names: Sequence[str]) -> None:
    """Draw the most probable classes as bars, with their names and probabilities above them."""
    best = np.argsort(-probabilities, stable=True)[:BARS]
    for place, i in enumerate(best):
        axis.barh(place, probabilities[i], height=0.3, color="#4878a8")
        text = f"{shorten_names(class_names)[i]}  {probabilities[i]:.1%}"
        axis.text(0, place - 0.22, text, fontsize=8, va="bottom", parse_math=False)
    axis.set(xlim=(0, 1), ylim=(BARS - 0.4, -0.9), frame_on=False)
