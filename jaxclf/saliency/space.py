"""The axes of images that are space: those between batch and channels."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Float, Shaped

from jaxclf.types import Array


def space(images: Shaped[Array, "b ..."]) -> tuple[int, ...]:
    """Sizes of the axes of space: height and width of [b, h, w, c]. Flat images [b, n] have one, and no channels."""
    return images.shape[1:-1] if images.ndim > 2 else images.shape[1:]


def along(line: Shaped[Array, " n"], axis: int, images: Shaped[Array, "b ..."]) -> Shaped[Array, ...]:
    """A value for each place along one axis of space, shaped to broadcast with the images."""
    return jnp.reshape(line, [-1 if i == axis + 1 else 1 for i in range(images.ndim)])


def on_channels(maps: Float[Array, "b ..."], images: Shaped[Array, "b ..."]) -> Float[Array, "b ..."]:
    """Maps of space, [b, ...] or [b, heads, ...], with the axis of channels that images have."""
    if images.ndim == 2:
        return maps
    return jnp.broadcast_to(maps[..., None], (*maps.shape, images.shape[-1]))
