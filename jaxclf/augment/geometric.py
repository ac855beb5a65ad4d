"""Random shifts, flips and rotations."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Float, Key

from jaxclf.augment.base import Image
from jaxclf.augment.resample import warp
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
    cosine, sine = jnp.cos(jnp.deg2rad(degrees)), jnp.sin(jnp.deg2rad(degrees))
    return warp(image, jnp.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]]))
