"""Random erasing of a square."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Key

from jaxclf.augment.base import Image
from jaxclf.errors import require


@dataclass(frozen=True)
class Cutout:
    """Black out a square whose centre is anywhere in the image. T. DeVries, G. Taylor (2017), arXiv:1708.04552."""

    pixels: int = 8
    """Side of the square; the part of it beyond the border is lost."""

    def __post_init__(self):
        require(self.pixels >= 0, f"pixels={self.pixels}: expected at least 0")

    def __call__(self, key: Key[jax.Array, ""], image: Image) -> Image:
        """The image [h, w, c] less a square."""
        centre = jax.random.randint(key, (2,), 0, jnp.array(image.shape[:2]))
        top, left = centre - self.pixels // 2
        down, right = jnp.arange(image.shape[0])[:, None] - top, jnp.arange(image.shape[1])[None] - left
        inside = (down >= 0) & (down < self.pixels) & (right >= 0) & (right < self.pixels)
        return jnp.where(inside[..., None], 0, image)
