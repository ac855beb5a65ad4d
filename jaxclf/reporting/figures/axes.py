"""What all figures are made with: axes that show an image, frames, and files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxclf.io.files import whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# A bluish green and a red that differ in lightness too, for every kind of colour vision; titles say it as well.
RIGHT, WRONG = "#009e73", "#c1121f"
FRAME = 3.0  # points


def show_image(axis, image: np.ndarray) -> None:
    """Draw one image [h, w, c], grey or colour, black to white over the whole range of its dtype."""
    highest = 255 if np.issubdtype(image.dtype, np.integer) else 1
    grey = image.shape[-1] == 1
    axis.imshow(image[..., 0] if grey else image, cmap="gray" if grey else None, vmin=0, vmax=highest)


def frame(axis, color: str) -> None:
    """Draw the frame of an axis in a colour."""
    for spine in axis.spines.values():
        spine.set(color=color, linewidth=FRAME)


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as a picture, whole; gives back the path."""
    with whole(path) as partial:
        figure.savefig(partial, dpi=120)
    return path


def pixels(figure: Figure) -> np.ndarray:
    """A figure as a picture, uint8 [h, w, 3]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
