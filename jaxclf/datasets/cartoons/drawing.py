"""Drawing of the Cartoons dataset's characters with Pillow, in random poses, light and clutter."""

from __future__ import annotations

from colorsys import hsv_to_rgb
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from jaxclf.datasets.cartoons.characters import SHAPES, Character, Shape

SIDE = 64  # pixels, of an image
CANVAS = 3 * SIDE  # pixels, of the drawing that is reduced to it, for smooth edges
OUTLINE = 0.07  # width, in radii of the head

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


def _apply_expression(shape: Shape, look: Look) -> np.ndarray:
    """Return the points [n, 2] of a shape, moved by the expression as its modifiers say."""
    x, y = shape.points.T
    middle = (y.min() + y.max()) / 2
    if "lid" in shape.modifiers:
        y = middle + (y - middle) * look.lids
    if "gape" in shape.modifiers:
        y = middle + (y - middle) * look.gape
    if "bend" in shape.modifiers:
        y = y + look.smile * (0.12 - x**2)
    if "brow" in shape.modifiers:
        y = y + look.brows * (np.abs(x) - 0.35)
    points = np.stack([x, y], axis=1)
    return points + look.gaze if "gaze" in shape.modifiers else points


def draw(character: Character, random: np.random.Generator) -> Image.Image:
    """Draw a random image of a character.

    Args:
        character: The character.
        random: The source of randomness, on which alone the image depends.

    Returns:
        An RGB image, 64x64.
    """
    image = _draw_background(random)
    canvas = ImageDraw.Draw(image)
    look = _sample_look(character.skin, random)
    radius = CANVAS / 2 * random.uniform(0.4, 0.78)
    center = CANVAS * 0.53 + random.uniform(-1, 1, 2) * (0.46 * CANVAS - 0.9 * radius)
    tilt = random.uniform(-0.36, 0.36)
    stretch = random.uniform(0.9, 1.1, 2) * (random.choice([-1, 1]), 1)
    for features, angle in ((character.body, tilt / 3), (character.head, tilt)):
        for shape in (shape for feature in features.split() for shape in SHAPES[feature]):
            _draw_shape(
                canvas, shape, center + radius * _rotate(_apply_expression(shape, look) * stretch, angle), look, radius
            )
    for _ in range(random.integers(4)):
        _draw_occluder(canvas, random)
    return _apply_lighting(image.resize((SIDE, SIDE), Image.Resampling.BOX), random)


def _rotate(points: np.ndarray, angle: float) -> np.ndarray:
    """Rotate points [n, 2] clockwise around the origin by an angle in radians."""
    x, y = points.T
    return np.stack([x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)], axis=1)


def _draw_shape(canvas: ImageDraw.ImageDraw, shape: Shape, points: np.ndarray, look: Look, radius: float) -> None:
    """Draw a shape at points [n, 2] of the canvas, with an outline unless it is flat or a line."""
    numbers, color = points.round(1).ravel().tolist(), look.colors[shape.color]
    if shape.width:
        canvas.line(numbers, color, round(shape.width * radius), joint="curve")
        return
    canvas.polygon(numbers, color)
    if "flat" not in shape.modifiers:
        canvas.line(numbers + numbers[:2], look.colors["ink"], round(OUTLINE * radius))


def _sample_color(random: np.random.Generator, palette: str = "any") -> Color:
    """Return a random color of a palette."""
    hue, saturation, value = (random.uniform(*ends) for ends in PALETTES[palette])
    red, green, blue = hsv_to_rgb(hue % 1, saturation, value)
    return int(255 * red), int(255 * green), int(255 * blue)


def _mix(color: Color, other: Color, share: float) -> Color:
    """Mix a color with a fraction of another one."""
    red, green, blue = (int(a + (b - a) * share) for a, b in zip(color, other, strict=True))
    return red, green, blue


def _sample_look(skin: str, random: np.random.Generator) -> Look:
    """Return random colors and a random expression."""
    own, cloth = _sample_color(random, skin), _sample_color(random)
    shades = {"skin": own, "light": _mix(own, (255, 250, 240), 0.5), "dark": _mix(own, (20, 10, 30), 0.4)}
    others = {name: _sample_color(random, name) for name in ("trim", "hair", "warm", "glass", "white", "mouth", "ink")}
    gaze = random.uniform(-1, 1, 2) * (0.09, 0.07)
    lids, brows = random.uniform(0.45, 1.1), random.uniform(-0.5, 0.5)
    smile, gape = random.uniform(-0.5, 1.1), random.uniform(0.4, 1.7)
    return Look({**shades, **others, "cloth": cloth}, gaze, lids, brows, smile, gape)


def _draw_background(random: np.random.Generator) -> Image.Image:
    """Return a canvas with a random background."""
    corners = [_sample_color(random) for _ in range(2)]
    corners += [_mix(corners[i], _sample_color(random), 0.4) for i in random.permutation(2)]
    image = Image.new("RGB", (2, 2))
    image.putdata(corners if random.random() < 0.7 else corners[:1] * 4)
    image = image.resize((CANVAS, CANVAS), Image.Resampling.BILINEAR)
    scenery = SCENERIES[random.integers(len(SCENERIES))]
    scenery(ImageDraw.Draw(image), random, [_sample_color(random) for _ in range(4)])
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


def _draw_occluder(canvas: ImageDraw.ImageDraw, random: np.random.Generator) -> None:
    """Draw a polygon with three to seven corners, or a long bar, in front of the character."""
    angles = np.linspace(0, 2 * np.pi, int(random.integers(3, 8)), endpoint=False) + random.uniform(0, 7)
    radii = (random.uniform(60, 130), random.uniform(3, 7)) if random.random() < 0.3 else random.uniform(8, 25, 2)
    points = _rotate(np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii, random.uniform(0, np.pi))
    points += random.uniform(0, CANVAS, 2)
    canvas.polygon(points.round(1).ravel().tolist(), _sample_color(random))


def _apply_lighting(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """Apply light from one side with a tint, random contrast, blur and noise."""
    if random.random() < 0.3:
        image = image.filter(ImageFilter.GaussianBlur(random.uniform(0.3, 0.8)))
    pixels = np.asarray(image, np.float32)
    side = 1 + random.uniform(-0.35, 0.35) * np.linspace(-1, 1, SIDE, dtype=np.float32)[:, None]
    tint = random.uniform(0.75, 1.25) * random.uniform(0.85, 1.15, 3)
    pixels = (pixels - 128) * np.float32(random.uniform(0.7, 1.2)) + 128
    pixels = pixels * side * tint.astype(np.float32)
    pixels += random.uniform(0, 10) * random.standard_normal(pixels.shape, np.float32)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
