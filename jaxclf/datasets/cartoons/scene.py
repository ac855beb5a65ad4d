"""A picture of a character as data: everything random in it is drawn once, and any of its parts can be left out."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFilter

from jaxclf.datasets.cartoons.characters import SHAPES, Character, Shape
from jaxclf.datasets.cartoons.looks import CANVAS, SIDE, Look, rotate, sample_look
from jaxclf.datasets.cartoons.scenery import Occluder, draw_background, sample_occluder

OUTLINE = 0.07  # width, in radii of the head


@dataclass(frozen=True, eq=False)
class Pose:
    """Size, position and orientation of a character."""

    radius: float
    """Of the head, in pixels of the canvas."""
    center: Float[np.ndarray, " 2"]
    tilt: float
    """Clockwise angle of the head, in radians."""
    stretch: Float[np.ndarray, " 2"]
    """Factors of width and height; the width is negative for a mirror image."""

    def place(self, points: Float[np.ndarray, "n 2"], angle: float) -> Float[np.ndarray, "n 2"]:
        """Return points of a shape on the canvas."""
        return self.center + self.radius * rotate(points * self.stretch, angle)


@dataclass(frozen=True, eq=False)
class Lighting:
    """Blur, light from one side, contrast and noise."""

    blur: float | None
    """Radius in pixels; None: no blur."""
    side: Float[np.ndarray, "width 1"]
    tint: Float[np.ndarray, " 3"]
    contrast: np.float32
    noise: Float[np.ndarray, "height width 3"]

    def apply(self, image: Image.Image) -> Image.Image:
        """Return the image as it looks in this light."""
        if self.blur is not None:
            image = image.filter(ImageFilter.GaussianBlur(self.blur))
        pixels = (np.asarray(image, np.float32) - 128) * self.contrast + 128
        return Image.fromarray((pixels * self.side * self.tint + self.noise).clip(0, 255).astype(np.uint8))


@dataclass(frozen=True, eq=False)
class Scene:
    """A character in front of a background and behind clutter."""

    character: Character
    background: Image.Image
    look: Look
    pose: Pose
    clutter: tuple[Occluder, ...]
    lighting: Lighting

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of what can be left out, in drawing order: a part covers those before it."""
        features = (*self.character.body.split(), *self.character.head.split())
        return tuple(name for name in features if name not in self.character.fixed.split())

    def draw(
        self, without: Collection[str] = (), background: Image.Image | None = None, clutter: bool = True
    ) -> Image.Image:
        """Draw the picture, 64x64. What is not left out is the same to the bit, light and noise included.

        Args:
            without: Names of parts to leave out.
            background: A canvas in place of the picture's own background.
            clutter: Draw what is in front of the character.

        Returns:
            An RGB image.
        """
        canvas = self.draw_canvas(without, background, clutter)
        return self.lighting.apply(canvas.resize((SIDE, SIDE), Image.Resampling.BOX))

    def draw_canvas(
        self, without: Collection[str] = (), background: Image.Image | None = None, clutter: bool = True
    ) -> Image.Image:
        """Draw the picture, 192x192, before it is reduced and lit. Arguments are those of `draw`."""
        image = (self.background if background is None else background).copy()
        canvas = ImageDraw.Draw(image)
        for features, angle in ((self.character.body, self.pose.tilt / 3), (self.character.head, self.pose.tilt)):
            for feature in features.split():
                for shape in SHAPES[feature] if feature not in without else ():
                    self._draw_shape(canvas, shape, angle)
        for occluder in self.clutter if clutter else ():
            occluder.draw(canvas)
        return image

    def _draw_shape(self, canvas: ImageDraw.ImageDraw, shape: Shape, angle: float) -> None:
        """Draw a shape, with an outline unless it is flat or a line."""
        points = self.pose.place(_apply_expression(shape, self.look), angle)
        numbers, color = points.round(1).ravel().tolist(), self.look.colors[shape.color]
        if shape.width:
            canvas.line(numbers, color, round(shape.width * self.pose.radius), joint="curve")
            return
        canvas.polygon(numbers, color)
        if "flat" not in shape.modifiers:
            canvas.line(numbers + numbers[:2], self.look.colors["ink"], round(OUTLINE * self.pose.radius))


def sample_scene(character: Character, random: np.random.Generator) -> Scene:
    """Return a random picture of a character, which depends on `random` alone."""
    background = draw_background(random)
    look = sample_look(character.skin, random)
    radius = CANVAS / 2 * random.uniform(0.4, 0.78)
    center = CANVAS * 0.53 + random.uniform(-1, 1, 2) * (0.46 * CANVAS - 0.9 * radius)
    tilt = random.uniform(-0.36, 0.36)
    stretch = random.uniform(0.9, 1.1, 2) * (random.choice([-1, 1]), 1)
    clutter = tuple(sample_occluder(random) for _ in range(random.integers(4)))
    pose = Pose(radius, center, tilt, stretch)
    return Scene(character, background, look, pose, clutter, _sample_lighting(random))


def _sample_lighting(random: np.random.Generator) -> Lighting:
    """Return light from one side with a tint, random contrast, blur and noise."""
    blur = random.uniform(0.3, 0.8) if random.random() < 0.3 else None
    side = 1 + random.uniform(-0.35, 0.35) * np.linspace(-1, 1, SIDE, dtype=np.float32)[:, None]
    tint = random.uniform(0.75, 1.25) * random.uniform(0.85, 1.15, 3)
    contrast = np.float32(random.uniform(0.7, 1.2))
    noise = random.uniform(0, 10) * random.standard_normal((SIDE, SIDE, 3), np.float32)
    return Lighting(blur, side, tint.astype(np.float32), contrast, noise)


def _apply_expression(shape: Shape, look: Look) -> Float[np.ndarray, "n 2"]:
    """Return the points of a shape, moved by the expression as its modifiers say."""
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
