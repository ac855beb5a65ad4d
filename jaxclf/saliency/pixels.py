"""Spatial axes and pixels of images and attributions: [b, ..., channels], or flat [b, n]."""

from __future__ import annotations

from math import isqrt, prod

import jax.numpy as jnp
from jaxtyping import Bool, Float, Shaped

from jaxclf.errors import require
from jaxclf.types import Array


def get_spatial_shape(images: Shaped[Array, "b ..."]) -> tuple[int, ...]:
    """Return the sizes of the spatial axes: height and width of [b, h, w, c], and n of flat images [b, n]."""
    return images.shape[1:-1] if images.ndim > 2 else images.shape[1:]


def expand_along_axis(line: Shaped[Array, " n"], axis: int, images: Shaped[Array, "b ..."]) -> Shaped[Array, ...]:
    """Reshape values along one spatial axis so that they broadcast with images."""
    return jnp.reshape(line, [-1 if i == axis + 1 else 1 for i in range(images.ndim)])


def broadcast_to_channels(maps: Shaped[Array, "b ..."], images: Shaped[Array, "b ..."]) -> Shaped[Array, "b ..."]:
    """Repeat spatial maps, [b, ...] or [b, targets, ...], along the channel axis of images."""
    if images.ndim == 2:
        return maps
    return jnp.broadcast_to(maps[..., None], (*maps.shape, images.shape[-1]))


def sum_channels(values: Float[Array, "b ..."]) -> Float[Array, "b pixels"]:
    """Return the importance of each pixel, the sum over its channels. In flat images every number is a pixel."""
    summed = values if values.ndim == 2 else values.sum(axis=-1)
    return summed.reshape(values.shape[0], -1)


def split_pixels(values: Float[Array, "maps ..."], images: Shaped[Array, "b ..."]) -> Float[Array, "b pixels channels"]:
    """Return the values of each pixel of the images: one per channel, or one for all channels.

    Raises UserError if the shape of the values does not match that of the images.
    """
    b, numbers = images.shape[0], prod(images.shape[1:])
    pixels = prod(get_spatial_shape(values))
    # The class activation map of a flat color image has a third as many values as the image.
    fits = pixels == prod(get_spatial_shape(images)) or (images.ndim == 2 and 3 * pixels == numbers)
    require(
        values.shape[0] == b and fits and prod(values.shape[1:]) in (pixels, numbers),
        f"values of shape {list(values.shape)} for images of shape {list(images.shape)}: expected those of one class, "
        "like the images or one per pixel; upsample class activation maps",
    )
    return values.reshape(b, pixels, -1)


def replace_pixels(
    images: Float[Array, "b ..."], others: Float[Array, "b ..."], mask: Bool[Array, "b pixels"]
) -> Float[Array, "b ..."]:
    """Take all channels of the pixels under the mask from other images."""
    shape = (*mask.shape, -1)
    return jnp.where(mask[:, :, None], others.reshape(shape), images.reshape(shape)).reshape(images.shape)


def infer_image_shape(shape: tuple[int, ...]) -> tuple[int, int, int] | None:
    """Return height, width and channels of an image [h, w, c] or of a flat square image, gray or color; else None."""
    if len(shape) == 3:
        return shape
    for channels in (1, 3):
        side = isqrt(prod(shape) // channels)
        if len(shape) == 1 and side * side * channels == shape[0]:
            return side, side, channels
    return None
