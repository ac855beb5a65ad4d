"""Parts that all figures share: images, frames and files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxclf.figures.text import set_fonts
from jaxclf.io.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# A bluish green and a red that also differ in lightness, for color-blind readers; titles repeat the information.
RIGHT, WRONG = "#009e73", "#c1121f"
FRAME = 3.0  # points


def show_image(axis: Axes, image: np.ndarray) -> None:
    """Draw an image [h, w, c], gray or RGB, from black to white over the whole range of its dtype."""
    highest = 255 if np.issubdtype(image.dtype, np.integer) else 1
    gray = image.shape[-1] == 1
    axis.imshow(image[..., 0] if gray else image, cmap="gray" if gray else None, vmin=0, vmax=highest)


def draw_frame(axis: Axes, color: str) -> None:
    """Draw the frame of an axis in a color."""
    for spine in axis.spines.values():
        spine.set(color=color, linewidth=FRAME)


def save(figure: Figure, path: Path) -> Path:
    """Write a figure to a file atomically.

    Args:
        figure: The figure.
        path: The file; its suffix gives the format, such as `.png`.

    Returns:
        The path.
    """
    set_fonts(figure)
    with atomic_write(path) as partial:
        figure.savefig(partial, dpi=120)
    return path


def to_pixels(figure: Figure) -> np.ndarray:
    """Render a figure as an image, uint8 [h, w, 3]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    set_fonts(figure)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def render_svg(figure: Figure) -> str:
    """Render a figure as an SVG element without a background; the same figure gives the same text."""
    import matplotlib

    file = io.StringIO()
    # Without the salt the ids differ in every run.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "jaxclf"}):
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=metadata)
    svg = file.getvalue()
    return svg[svg.index("<svg") :]
