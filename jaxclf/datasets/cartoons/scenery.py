"""Backgrounds and clutter of the Cartoons dataset's images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from jaxclf.datasets.cartoons.looks import CANVAS, Color, mix_colors, rotate, sample_color


@dataclass(frozen=True, eq=False)
class Occluder:
    """A polygon in front of the character."""

    points: list[float]
    color: Color

    def draw(self, canvas: ImageDraw.ImageDraw) -> None:
        """Draw the polygon."""
        canvas.polygon(self.points, self.color)


def draw_background(random: np.random.Generator) -> Image.Image:
    """Return a canvas with a random background."""
    corners = [sample_color(random) for _ in range(2)]
    corners += [mix_colors(corners[i], sample_color(random), 0.4) for i in random.permutation(2)]
    image = Image.new("RGB", (2, 2))
    image.putdata(corners if random.random() < 0.7 else corners[:1] * 4)
    image = image.resize((CANVAS, CANVAS), Image.Resampling.BILINEAR)
    scenery = SCENERIES[random.integers(len(SCENERIES))]
    scenery(ImageDraw.Draw(image), random, [sample_color(random) for _ in range(4)])
    return image


def _draw_nothing(canvas: ImageDraw.ImageDraw, random: np.random.Generator, colors: list[Color]) -> None:
    """Draw nothing."""


def _draw_stripes(canvas: ImageDraw.ImageDraw, random: np.random.Generator, colors: list[Color]) -> None:
    """Draw parallel bars at a random angle."""
    period, slant = random.uniform(22, 70), random.uniform(-1, 1) * CANVAS
    for left in np.arange(-CANVAS - random.uniform(0, period), 2 * CANVAS, period).tolist():
        ends = [(left, 0), (left + period / 2, 0), (left + period / 2 + slant, CANVAS), (left + slant, CANVAS)]
        canvas.polygon([(y, x) for x, y in ends] if period > 46 else ends, colors[0])


def _draw_checkerboard(canvas: ImageDraw.ImageDraw, random: np.random.Generator, colors: list[Color]) -> None:
    """Draw a checkerboard."""
    size = int(random.integers(14, 48))
    for row in range(CANVAS // size + 1):
        for column in range(row % 2, CANVAS // size + 1, 2):
            canvas.rectangle((column * size, row * size, (column + 1) * size, (row + 1) * size), colors[0])


def _draw_hills(canvas: ImageDraw.ImageDraw, random: np.random.Generator, colors: list[Color]) -> None:
    """Draw a sun and three hills."""
    _draw_circle(canvas, random.uniform(0, CANVAS, 2) * (1, 0.5), random.uniform(10, 30), colors[0])
    for i, color in enumerate(colors[1:]):
        top, radius = CANVAS * random.uniform(0.4, 0.7) + 25 * i, random.uniform(60, 220)
        _draw_circle(canvas, np.array([random.uniform(0, CANVAS), top + radius]), radius, color)


def _draw_room(canvas: ImageDraw.ImageDraw, random: np.random.Generator, colors: list[Color]) -> None:
    """Draw a floor, a cupboard and a window."""
    floor, left, other = CANVAS * random.uniform(0.55, 0.9), random.uniform(0, 150), random.uniform(0, 150)
    canvas.rectangle((0, floor, CANVAS, CANVAS), colors[0])
    canvas.rectangle((other, random.uniform(20, 100), other + random.uniform(30, 80), floor), colors[1])
    top, width, height = random.uniform(5, 70), random.uniform(30, 70), random.uniform(30, 70)
    canvas.rectangle((left, top, left + width, top + height), colors[2], colors[3], 5)
    canvas.line((left + width / 2, top, left + width / 2, top + height), colors[3], 5)


def _draw_bubbles(canvas: ImageDraw.ImageDraw, random: np.random.Generator, colors: list[Color]) -> None:
    """Draw circles of random sizes."""
    for i in range(random.integers(6, 22)):
        _draw_circle(canvas, random.uniform(0, CANVAS, 2), random.uniform(5, 36), colors[i % 4])


SCENERIES = (_draw_nothing, _draw_stripes, _draw_checkerboard, _draw_hills, _draw_room, _draw_bubbles)


def _draw_circle(canvas: ImageDraw.ImageDraw, center: np.ndarray, radius: float, color: Color) -> None:
    """Draw a disc."""
    x, y = center.tolist()
    canvas.ellipse((x - radius, y - radius, x + radius, y + radius), color)


def sample_occluder(random: np.random.Generator) -> Occluder:
    """Return a polygon with three to seven corners, or a long bar."""
    angles = np.linspace(0, 2 * np.pi, int(random.integers(3, 8)), endpoint=False) + random.uniform(0, 7)
    radii = (random.uniform(60, 130), random.uniform(3, 7)) if random.random() < 0.3 else random.uniform(8, 25, 2)
    points = rotate(np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii, random.uniform(0, np.pi))
    points += random.uniform(0, CANVAS, 2)
    return Occluder(points.round(1).ravel().tolist(), sample_color(random))
