"""Random crops of a fixed size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Int, Key

from jaxclf.augment.base import Image, OutputImage, Shape
from jaxclf.augment.boxes import draw_box
from jaxclf.augment.resample import resize_crop
from jaxclf.errors import require
from jaxclf.types import Array


@dataclass(frozen=True)
class RandomCrop:
    """Crop a random square, of an image that may be padded before."""

    size: int
    """Side of the square in pixels."""
    padding: int = 0
    """Pixels that are added on each side before."""
    mode: Literal["constant", "edge", "reflect"] = "constant"
    """Padding: zeros, the nearest pixel, or the image mirrored at its outermost pixels."""

    def __post_init__(self):
        require(self.size >= 1, f"size={self.size}: expected at least 1")
        require(self.padding >= 0, f"padding={self.padding}: expected at least 0")

    def output_shape(self, shape: Shape) -> Shape:
        """Return the shape of the crop."""
        height, width, channels = shape
        check_size(min(height, width) + 2 * self.padding, self.size, shape)
        return self.size, self.size, channels

    def __call__(self, key: Key[jax.Array, ""], image: Image) -> OutputImage:
        """Return a crop [size, size, c]."""
        shape, p = self.output_shape(image.shape), self.padding
        padded = jnp.pad(image, ((p, p), (p, p), (0, 0)), self.mode)
        limits = jnp.array(padded.shape[:2]) - self.size + 1
        down, right = jax.random.randint(key, (2,), 0, limits)
        return jax.lax.dynamic_slice(padded, (down, right, 0), shape)


@dataclass(frozen=True)
class RandomResizedCrop:
    """Crop a random part of an image and resize it, bilinearly. C. Szegedy et al. (2014), arXiv:1409.4842."""

    size: int
    """Side of the result in pixels."""
    scale: tuple[float, float] = (0.08, 1.0)
    """Range of the area of the part, as a fraction of that of the image."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Range of the width of the part divided by its height, which is drawn on a logarithmic scale."""

    def __post_init__(self):
        require(self.size >= 1, f"size={self.size}: expected at least 1")
        check_range("scale", self.scale, 1.0)
        check_range("ratio", self.ratio)

    def output_shape(self, shape: Shape) -> Shape:
        """Return the shape of the result."""
        return self.size, self.size, shape[2]

    def __call__(self, key: Key[jax.Array, ""], image: Image) -> OutputImage:
        """Return a resized part [size, size, c]."""
        box, found = draw_box(key, image.shape, self.scale, (1 / self.ratio[1], 1 / self.ratio[0]))
        box = jnp.where(found, box, self._center(image.shape))
        return resize_crop(image, box, (self.size, self.size))

    def _center(self, shape: Shape) -> Int[Array, " 4"]:
        """Return the largest box in the center that is within the range of ratios."""
        height, width, _ = shape
        low, high = self.ratio
        box_height, box_width = min(height, round(width / low)), min(width, round(height * high))
        return jnp.array([(height - box_height) // 2, (width - box_width) // 2, box_height, box_width])


def check_size(available: int, size: int, shape: Shape) -> None:
    """Raise UserError if a crop of a size does not fit into the available pixels of images of a shape."""
    require(
        size <= available,
        f"a crop of {size}x{size} pixels does not fit into images {list(shape)}: lower size to {available}, or let the "
        "dataset have larger images with --dataset.image-size",
    )


def check_range(name: str, values: tuple[float, float], highest: float = float("inf")) -> None:
    """Raise UserError unless two values are a range of positive numbers."""
    low, high = values
    require(0 < low <= high <= highest, f"{name}={values}: expected a low and a high value, above 0, up to {highest:g}")
