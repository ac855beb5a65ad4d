"""Random erasing of a rectangle."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Int, Key

from jaxclf.augment.base import Image
from jaxclf.augment.boxes import draw_box
from jaxclf.augment.crops import check_range
from jaxclf.errors import require
from jaxclf.types import Array


@dataclass(frozen=True)
class RandomErasing:
    """Fill a random rectangle with one value. Z. Zhong et al. (2017), arXiv:1708.04896."""

    probability: float = 0.5
    """Probability that an image is changed."""
    scale: tuple[float, float] = (0.02, 0.33)
    """Range of the area of the rectangle, as a fraction of that of the image."""
    ratio: tuple[float, float] = (0.3, 3.3)
    """Range of its height divided by its width, which is drawn on a logarithmic scale."""
    value: float = 0.0
    """Value of its pixels, from 0 (black) to 1."""

    def __post_init__(self):
        require(0 <= self.probability <= 1, f"probability={self.probability}: expected 0 to 1")
        check_range("scale", self.scale, 1.0)
        check_range("ratio", self.ratio)
        require(0 <= self.value <= 1, f"value={self.value}: expected 0 to 1")

    def __call__(self, key: Key[jax.Array, ""], image: Image) -> Image:
        """Return an image [h, w, c] with a rectangle of one value, or the image."""
        chance_key, box_key = jax.random.split(key)
        box, found = draw_box(box_key, image.shape, self.scale, self.ratio)
        erased = found & jax.random.bernoulli(chance_key, self.probability)
        inside = mark_box(image.shape, box[:2], box[:2] + box[2:]) & erased
        value = round(255 * self.value) if jnp.issubdtype(image.dtype, jnp.integer) else self.value
        return jnp.where(inside[..., None], jnp.asarray(value, image.dtype), image)


def mark_box(shape: tuple[int, ...], start: Int[Array, " 2"], stop: Int[Array, " 2"]) -> Bool[Array, "h w"]:
    """Return which pixels [h, w] are inside a box from `start` to before `stop`, each (row, column)."""
    rows, columns = jnp.arange(shape[0])[:, None], jnp.arange(shape[1])[None]
    return (rows >= start[0]) & (rows < stop[0]) & (columns >= start[1]) & (columns < stop[1])
