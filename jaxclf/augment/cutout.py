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
    """Zero a random square. T. DeVries, G. Taylor, "Cutout" (2017), arXiv:1708.04552."""

    pixels: int = 8
    """Side of the square in pixels. Its center is inside the image; the rest may extend beyond the border."""

    def __post_init__(self):
        require(self.pixels >= 0, f"pixels={self.pixels}: expected at least 0")

    def __call__(self, key: Key[jax.Array, ""], image: Image) -> Image:
        """Return an image [h, w, c] with a square of zeros."""
        center = jax.random.randint(key, (2,), 0, jnp.array(image.shape[:2]))
        top, left = center - self.pixels // 2
        down, right = jnp.arange(image.shape[0])[:, None] - top, jnp.arange(image.shape[1])[None] - left
        inside = (down >= 0) & (down < self.pixels) & (right >= 0) & (right < self.pixels)
        return jnp.where(inside[..., None], 0, image)
