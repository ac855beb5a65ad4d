"""Colors and expressions of the Cartoons dataset's characters."""

from __future__ import annotations

from colorsys import hsv_to_rgb
from dataclasses import dataclass

import numpy as np

SIDE = 64  # pixels, of an image
CANVAS = 3 * SIDE  # pixels, of the drawing that is reduced to it, for smooth edges

Color = tuple[int, int, int]

PALETTES = {  # ranges of hue, saturation and value, wide and shared, so that no color identifies a character
    "any": ((0.0, 1.0), (0.1, 0.9), (0.25, 1.0)),
    "person": ((0.03, 0.1), (0.2, 0.6), (0.5, 1.0)),
    "animal": ((0.02, 0.14), (0.1, 0.75), (0.35, 1.0)),
    "odd": ((0.0, 1.0), (0.25, 0.8), (0.5, 1.0)),
    "pale": ((0.0, 1.0), (0.0, 0.25), (0.65, 1.0)),
    "trim": ((0.0, 1.0), (0.4, 1.0), (0.5, 1.0)),
    "hair": ((0.0, 1.0), (0.0, 0.8), (0.12, 0.95)),
    "warm": ((-0.04, 0.15), (0.7, 1.0), (0.75, 1.0)),
    "glass": ((0.35, 0.65), (0.1, 0.5), (0.75, 1.0)),
    "white": ((0.0, 1.0), (0.0, 0.12), (0.85, 1.0)),
    "mouth": ((-0.05, 0.03), (0.5, 0.9), (0.25, 0.6)),
    "ink": ((0.0, 1.0), (0.1, 0.9), (0.03, 0.2)),
}


@dataclass(frozen=True)
class Look:
    """Colors by name and the facial expression of one image."""

    colors: dict[str, Color]
    gaze: np.ndarray
    lids: float
    brows: float
    smile: float
    gape: float


def rotate(points: np.ndarray, angle: float) -> np.ndarray:
    """Rotate points [n, 2] clockwise around the origin by an angle in radians."""
    x, y = points.T
    return np.stack([x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)], axis=1)


def sample_color(random: np.random.Generator, palette: str = "any") -> Color:
    """Return a random color of a palette."""
    hue, saturation, value = (random.uniform(*ends) for ends in PALETTES[palette])
    red, green, blue = hsv_to_rgb(hue % 1, saturation, value)
    return int(255 * red), int(255 * green), int(255 * blue)


def mix_colors(color: Color, other: Color, share: float) -> Color:
    """Mix a color with a fraction of another one."""
    red, green, blue = (int(a + (b - a) * share) for a, b in zip(color, other, strict=True))
    return red, green, blue


def sample_look(skin: str, random: np.random.Generator) -> Look:
    """Return random colors and a random expression."""
    own, cloth = sample_color(random, skin), sample_color(random)
    shades = {"skin": own, "light": mix_colors(own, (255, 250, 240), 0.5), "dark": mix_colors(own, (20, 10, 30), 0.4)}
    others = {name: sample_color(random, name) for name in ("trim", "hair", "warm", "glass", "white", "mouth", "ink")}
    gaze = random.uniform(-1, 1, 2) * (0.09, 0.07)
    lids, brows = random.uniform(0.45, 1.1), random.uniform(-0.5, 0.5)
    smile, gape = random.uniform(-0.5, 1.1), random.uniform(0.4, 1.7)
    return Look({**shades, **others, "cloth": cloth}, gaze, lids, brows, smile, gape)
