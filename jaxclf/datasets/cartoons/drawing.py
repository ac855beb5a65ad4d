"""Draws the characters of the Cartoons dataset with Pillow, each time in another pose, light and clutter."""

from __future__ import annotations

from colorsys import hsv_to_rgb
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from jaxclf.datasets.cartoons.characters import SHAPES, Character, Shape

SIDE = 64  # pixels of a picture
CANVAS = 3 * SIDE  # pixels of its drawing, for smooth edges
OUTLINE = 0.07  # width, in radii of the head

Colour = tuple[int, int, int]

PALETTES = {  # ranges of hue, saturation and value, wide and shared so that colour gives no character away
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
    """What differs between pictures of a character: colours by name, and the numbers of an expression."""

    colours: dict[str, Colour]
    gaze: np.ndarray
    lids: float
    brows: float
    smile: float
    gape: float


def expressed(shape: Shape, look: Look) -> np.ndarray:
    """The points of a shape, moved by the expression as its modifiers say."""
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
    """A picture of the character, 64x64 in RGB."""
    picture = background(random)
    canvas = ImageDraw.Draw(picture)
    look = random_look(character.skin, random)
    radius = CANVAS / 2 * random.uniform(0.4, 0.78)
    centre = CANVAS * 0.53 + random.uniform(-1, 1, 2) * (0.46 * CANVAS - 0.9 * radius)
    tilt = random.uniform(-0.36, 0.36)
    stretch = random.uniform(0.9, 1.1, 2) * (random.choice([-1, 1]), 1)
    for features, angle in ((character.body, tilt / 3), (character.head, tilt)):
        for shape in (shape for feature in features.split() for shape in SHAPES[feature]):
            paint(canvas, shape, centre + radius * turned(expressed(shape, look) * stretch, angle), look, radius)
    for _ in range(random.integers(4)):
        occlude(canvas, random)
    return light(picture.resize((SIDE, SIDE), Image.Resampling.BOX), random)


def turned(points: np.ndarray, angle: float) -> np.ndarray:
    """The points turned clockwise about the origin by an angle in radians."""
    x, y = points.T
    return np.stack([x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)], axis=1)


def paint(canvas: ImageDraw.ImageDraw, shape: Shape, points: np.ndarray, look: Look, radius: float) -> None:
    """Draw a shape at points of the canvas, with an outline unless it is flat or a line."""
    numbers, colour = points.round(1).ravel().tolist(), look.colours[shape.colour]
    if shape.width:
        canvas.line(numbers, colour, round(shape.width * radius), joint="curve")
        return
    canvas.polygon(numbers, colour)
    if "flat" not in shape.modifiers:
        canvas.line(numbers + numbers[:2], look.colours["ink"], round(OUTLINE * radius))


def random_colour(random: np.random.Generator, palette: str = "any") -> Colour:
    """A colour of a palette."""
    hue, saturation, value = (random.uniform(*ends) for ends in PALETTES[palette])
    red, green, blue = hsv_to_rgb(hue % 1, saturation, value)
    return int(255 * red), int(255 * green), int(255 * blue)


def mixed(colour: Colour, other: Colour, share: float) -> Colour:
    """The colour with a share of another one."""
    red, green, blue = (int(a + (b - a) * share) for a, b in zip(colour, other, strict=True))
    return red, green, blue


def random_look(skin: str, random: np.random.Generator) -> Look:
    """The colours and the expression of one picture."""
    own, cloth = random_colour(random, skin), random_colour(random)
    shades = {"skin": own, "light": mixed(own, (255, 250, 240), 0.5), "dark": mixed(own, (20, 10, 30), 0.4)}
    others = {name: random_colour(random, name) for name in ("trim", "hair", "warm", "glass", "white", "mouth", "ink")}
    gaze = random.uniform(-1, 1, 2) * (0.09, 0.07)
    lids, brows = random.uniform(0.45, 1.1), random.uniform(-0.5, 0.5)
    smile, gape = random.uniform(-0.5, 1.1), random.uniform(0.4, 1.7)
    return Look({**shades, **others, "cloth": cloth}, gaze, lids, brows, smile, gape)


def background(random: np.random.Generator) -> Image.Image:
    """A canvas with something behind the character."""
    corners = [random_colour(random) for _ in range(2)]
    corners += [mixed(corners[i], random_colour(random), 0.4) for i in random.permutation(2)]
    picture = Image.new("RGB", (2, 2))
    picture.putdata(corners if random.random() < 0.7 else corners[:1] * 4)
    picture = picture.resize((CANVAS, CANVAS), Image.Resampling.BILINEAR)
    scenery = SCENERIES[random.integers(len(SCENERIES))]
    scenery(ImageDraw.Draw(picture), random, [random_colour(random) for _ in range(4)])
    return picture


def plain(canvas: ImageDraw.ImageDraw, random: np.random.Generator, colours: list[Colour]) -> None:
    """Nothing."""


def stripes(canvas: ImageDraw.ImageDraw, random: np.random.Generator, colours: list[Colour]) -> None:
    """Parallel bars at any angle."""
    period, slant = random.uniform(22, 70), random.uniform(-1, 1) * CANVAS
    for left in np.arange(-CANVAS - random.uniform(0, period), 2 * CANVAS, period).tolist():
        ends = [(left, 0), (left + period / 2, 0), (left + period / 2 + slant, CANVAS), (left + slant, CANVAS)]
        canvas.polygon([(y, x) for x, y in ends] if period > 46 else ends, colours[0])


def checker(canvas: ImageDraw.ImageDraw, random: np.random.Generator, colours: list[Colour]) -> None:
    """Squares of a board."""
    size = int(random.integers(14, 48))
    for row in range(CANVAS // size + 1):
        for column in range(row % 2, CANVAS // size + 1, 2):
            canvas.rectangle((column * size, row * size, (column + 1) * size, (row + 1) * size), colours[0])


def hills(canvas: ImageDraw.ImageDraw, random: np.random.Generator, colours: list[Colour]) -> None:
    """A sun and three hills."""
    circle(canvas, random.uniform(0, CANVAS, 2) * (1, 0.5), random.uniform(10, 30), colours[0])
    for i, colour in enumerate(colours[1:]):
        top, radius = CANVAS * random.uniform(0.4, 0.7) + 25 * i, random.uniform(60, 220)
        circle(canvas, np.array([random.uniform(0, CANVAS), top + radius]), radius, colour)


def room(canvas: ImageDraw.ImageDraw, random: np.random.Generator, colours: list[Colour]) -> None:
    """A floor, a window and a cupboard."""
    floor, left, other = CANVAS * random.uniform(0.55, 0.9), random.uniform(0, 150), random.uniform(0, 150)
    canvas.rectangle((0, floor, CANVAS, CANVAS), colours[0])
    canvas.rectangle((other, random.uniform(20, 100), other + random.uniform(30, 80), floor), colours[1])
    top, width, height = random.uniform(5, 70), random.uniform(30, 70), random.uniform(30, 70)
    canvas.rectangle((left, top, left + width, top + height), colours[2], colours[3], 5)
    canvas.line((left + width / 2, top, left + width / 2, top + height), colours[3], 5)


def bubbles(canvas: ImageDraw.ImageDraw, random: np.random.Generator, colours: list[Colour]) -> None:
    """Circles of all sizes."""
    for i in range(random.integers(6, 22)):
        circle(canvas, random.uniform(0, CANVAS, 2), random.uniform(5, 36), colours[i % 4])


SCENERIES = (plain, stripes, checker, hills, room, bubbles)


def circle(canvas: ImageDraw.ImageDraw, centre: np.ndarray, radius: float, colour: Colour) -> None:
    """Draw a disc."""
    x, y = centre.tolist()
    canvas.ellipse((x - radius, y - radius, x + radius, y + radius), colour)


def occlude(canvas: ImageDraw.ImageDraw, random: np.random.Generator) -> None:
    """Draw something in front of the character: a polygon of three to seven corners, or a long bar."""
    angles = np.linspace(0, 2 * np.pi, int(random.integers(3, 8)), endpoint=False) + random.uniform(0, 7)
    radii = (random.uniform(60, 130), random.uniform(3, 7)) if random.random() < 0.3 else random.uniform(8, 25, 2)
    points = turned(np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii, random.uniform(0, np.pi))
    points += random.uniform(0, CANVAS, 2)
    canvas.polygon(points.round(1).ravel().tolist(), random_colour(random))


def light(picture: Image.Image, random: np.random.Generator) -> Image.Image:
    """The picture under another light, from one side and of a tint, and through a poor camera."""
    if random.random() < 0.3:
        picture = picture.filter(ImageFilter.GaussianBlur(random.uniform(0.3, 0.8)))
    pixels = np.asarray(picture, np.float32)
    side = 1 + random.uniform(-0.35, 0.35) * np.linspace(-1, 1, SIDE, dtype=np.float32)[:, None]
    tint = random.uniform(0.75, 1.25) * random.uniform(0.85, 1.15, 3)
    pixels = (pixels - 128) * np.float32(random.uniform(0.7, 1.2)) + 128
    pixels = pixels * side * tint.astype(np.float32)
    pixels += random.uniform(0, 10) * random.standard_normal(pixels.shape, np.float32)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
