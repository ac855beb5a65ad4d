"""Augmentations that move pixels: shift, flip, rotation."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, Key

from jaxclf.augment.base import Image
from jaxclf.errors import require
from jaxclf.types import Array


@dataclass(frozen=True)
class Shift:
    """Move the image by up to `pixels` up or down and left or right; what comes in is black."""

    pixels: int = 2
    """Largest shift along each axis, in pixels."""

    def __post_init__(self):
        require(self.pixels >= 0, f"pixels={self.pixels}: expected at least 0")

    def __call__(self, key: Key[jax.Array, ""], image: Image) -> Image:
        """A shifted image [h, w, c]."""
        p = self.pixels
        padded = jnp.pad(image, ((p, p), (p, p), (0, 0)))
        down, right = jax.random.randint(key, (2,), 0, 2 * p + 1)
        return jax.lax.dynamic_slice(padded, (down, right, 0), image.shape)


@dataclass(frozen=True)
class Flip:
    """Mirror the image, left to right."""

    probability: float = 0.5
    """Share of the images that are mirrored."""

    def __post_init__(self):
        require(0 <= self.probability <= 1, f"probability={self.probability}: expected 0 to 1")

    def __call__(self, key: Key[jax.Array, ""], image: Image) -> Image:
        """The image [h, w, c] or its mirror image."""
        return jnp.where(jax.random.bernoulli(key, self.probability), image[:, ::-1], image)


@dataclass(frozen=True)
class Rotate:
    """Turn the image about its centre by up to `degrees` either way; what comes in is black."""

    degrees: float = 10.0
    """Largest angle."""

    def __post_init__(self):
        require(0 <= self.degrees <= 180, f"degrees={self.degrees}: expected 0 to 180")

    def __call__(self, key: Key[jax.Array, ""], image: Image) -> Image:
        """A turned image [h, w, c]."""
        return rotate(image, jax.random.uniform(key, minval=-self.degrees, maxval=self.degrees))


def rotate(image: Image, degrees: Float[Array, ""] | float) -> Image:
    """The image turned counterclockwise about its centre, bilinear, as if it were surrounded by black."""
    height, width, _ = image.shape
    middle_y, middle_x = (height - 1) / 2, (width - 1) / 2
    down, right = jnp.arange(height)[:, None] - middle_y, jnp.arange(width)[None] - middle_x
    cosine, sine = jnp.cos(jnp.deg2rad(degrees)), jnp.sin(jnp.deg2rad(degrees))
    y, x = cosine * down + sine * right + middle_y, cosine * right - sine * down + middle_x
    top, left = jnp.floor(y).astype(int), jnp.floor(x).astype(int)
    corners = ((row, column) for row in (top, top + 1) for column in (left, left + 1))
    turned = sum((_share(image, row, column, y, x) for row, column in corners), start=jnp.zeros(image.shape))
    # Cut off, not rounded, integers would come out half a step too dark on average.
    return (jnp.rint(turned) if jnp.issubdtype(image.dtype, jnp.integer) else turned).astype(image.dtype)


def _share(
    image: Image, row: Int[Array, "h w"], column: Int[Array, "h w"], y: Float[Array, "h w"], x: Float[Array, "h w"]
) -> Float[Array, "h w c"]:
    """What the pixels at `row`, `column` give to the points between pixels at `y`, `x`."""
    height, width, _ = image.shape
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    weight = jnp.where(inside, (1 - jnp.abs(y - row)) * (1 - jnp.abs(x - column)), 0)
    pixels = image[jnp.clip(row, 0, height - 1), jnp.clip(column, 0, width - 1)]
    return weight[..., None] * pixels.astype(jnp.float32)
