"""Random boxes inside an image, given by area and aspect ratio."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Int, Key

from jaxclf.augment.base import Shape
from jaxclf.types import Array

ATTEMPTS = 10
"""Boxes that are drawn until one fits, as in torchvision."""


def draw_box(
    key: Key[jax.Array, ""], shape: Shape, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[Int[Array, " 4"], Bool[Array, ""]]:
    """Draw a box that fits into an image.

    Args:
        key: A random key.
        shape: The shape of the image.
        scale: Range of the area of the box, as a fraction of that of the image.
        ratio: Range of the height of the box divided by its width, which is drawn on a logarithmic scale.

    Returns:
        Top, left, height and width of the box in pixels, and whether one of ten boxes did fit.
    """
    area_key, ratio_key, place_key = jax.random.split(key, 3)
    size = jnp.array(shape[:2])
    areas = shape[0] * shape[1] * jax.random.uniform(area_key, (ATTEMPTS,), minval=scale[0], maxval=scale[1])
    low, high = jnp.log(jnp.array(ratio))
    ratios = jnp.exp(jax.random.uniform(ratio_key, (ATTEMPTS,), minval=low, maxval=high))
    sizes = jnp.rint(jnp.sqrt(areas[:, None] * jnp.stack([ratios, 1 / ratios], 1))).astype(int)
    fits = ((sizes > 0) & (sizes <= size[None])).all(1)
    chosen = sizes[jnp.argmax(fits)]
    place = jax.random.randint(place_key, (2,), 0, jnp.maximum(size - chosen, 0) + 1)
    return jnp.concatenate([place, chosen]), fits.any()
