"""Random shifts, flips and rotations."""

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
    """Shift an image by a random number of pixels along each axis, padding with zeros."""

    pixels: int = 2
    """Maximum shift along each axis, in pixels."""

    def __post_init__(self):
        require(self.pixels >= 0, f"pixels={self.pixels}: expected at least 0")

    def __call__(self, key: Key[jax.Array, ""], image: Image) -> Image:
        """Return a shifted image [h, w, c]."""
        p = self.pixels
        padded = jnp.pad(image, ((p, p), (p, p), (0, 0)))
        down, right = jax.random.randint(key, (2,), 0, 2 * p + 1)
        return jax.lax.dynamic_slice(padded, (down, right, 0), image.shape)


@dataclass(frozen=True)
class Flip:
    """Flip images horizontally at random."""

    probability: float = 0.5
    """Probability of a flip."""

    def __post_init__(self):
        require(0 <= self.probability <= 1, f"probability={self.probability}: expected 0 to 1")

    def __call__(self, key: Key[jax.Array, ""], image: Image) -> Image:
        """Return an image [h, w, c] or its mirror image."""
        return jnp.where(jax.random.bernoulli(key, self.probability), image[:, ::-1], image)


@dataclass(frozen=True)
class Rotate:
    """Rotate an image about its center by a random angle, with bilinear interpolation, padding with zeros."""

    degrees: float = 10.0
    """Maximum angle in either direction, in degrees."""

    def __post_init__(self):
        require(0 <= self.degrees <= 180, f"degrees={self.degrees}: expected 0 to 180")

    def __call__(self, key: Key[jax.Array, ""], image: Image) -> Image:
        """Return a rotated image [h, w, c]."""
        return rotate(image, jax.random.uniform(key, minval=-self.degrees, maxval=self.degrees))


def rotate(image: Image, degrees: Float[Array, ""] | float) -> Image:
    """Rotate an image counterclockwise about its center, with bilinear interpolation, padding with zeros.

    Args:
        image: An image [h, w, c].
        degrees: The angle in degrees.

    Returns:
        An image of the same shape and dtype.
    """
    height, width, _ = image.shape
    middle_y, middle_x = (height - 1) / 2, (width - 1) / 2
    down, right = jnp.arange(height)[:, None] - middle_y, jnp.arange(width)[None] - middle_x
    cosine, sine = jnp.cos(jnp.deg2rad(degrees)), jnp.sin(jnp.deg2rad(degrees))
    y, x = cosine * down + sine * right + middle_y, cosine * right - sine * down + middle_x
    top, left = jnp.floor(y).astype(int), jnp.floor(x).astype(int)
    corners = ((row, column) for row in (top, top + 1) for column in (left, left + 1))
    rotated = sum((_weigh_pixels(image, row, column, y, x) for row, column in corners), start=jnp.zeros(image.shape))
    # Without rounding, integers would be 1/2 too dark on average.
    return (jnp.rint(rotated) if jnp.issubdtype(image.dtype, jnp.integer) else rotated).astype(image.dtype)


def _weigh_pixels(
    image: Image, row: Int[Array, "h w"], column: Int[Array, "h w"], y: Float[Array, "h w"], x: Float[Array, "h w"]
) -> Float[Array, "h w c"]:
    """Return pixels at `row`, `column` times their bilinear weights at the points `y`, `x`."""
    height, width, _ = image.shape
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    weight = jnp.where(inside, (1 - jnp.abs(y - row)) * (1 - jnp.abs(x - column)), 0)
    pixels = image[jnp.clip(row, 0, height - 1), jnp.clip(column, 0, width - 1)]
    return weight[..., None] * pixels.astype(jnp.float32)
