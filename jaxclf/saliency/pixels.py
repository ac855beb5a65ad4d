"""Pixels: which of the numbers of an image, and of its attribution, belong to one."""

from __future__ import annotations

from math import isqrt, prod

import jax.numpy as jnp
from jaxtyping import Bool, Float, Shaped

from jaxclf.errors import require
from jaxclf.saliency.space import space
from jaxclf.types import Array


def importance(values: Float[Array, "b ..."]) -> Float[Array, "b pixels"]:
    """What each pixel is owed: the sum over its channels. In flat images every number is a pixel."""
    summed = values if values.ndim == 2 else values.sum(axis=-1)
    return summed.reshape(values.shape[0], -1)


def by_pixel(values: Float[Array, "maps ..."], images: Shaped[Array, "b ..."]) -> Float[Array, "b pixels channels"]:
    """The values of each pixel of the images: one a channel, or one for all of them.

    Raises UserError for a map of another size.
    """
    b, numbers = images.shape[0], prod(images.shape[1:])
    pixels = prod(space(values))
    # A class-activation map of flat images tells how many pixels they have: of colour, a third of their numbers.
    fits = pixels == prod(space(images)) or (images.ndim == 2 and 3 * pixels == numbers)
    require(
        values.shape[0] == b and fits and prod(values.shape[1:]) in (pixels, numbers),
        f"values of shape {list(values.shape)} for images of shape {list(images.shape)}: expected those of one class, "
        "like the images or one a pixel; upsample class-activation maps",
    )
    return values.reshape(b, pixels, -1)


def replaced(
    images: Float[Array, "b ..."], others: Float[Array, "b ..."], gone: Bool[Array, "b pixels"]
) -> Float[Array, "b ..."]:
    """The images with the pixels that are gone, in all channels, taken from others."""
    shape = (*gone.shape, -1)
    return jnp.where(gone[:, :, None], others.reshape(shape), images.reshape(shape)).reshape(images.shape)


def grid(shape: tuple[int, ...]) -> tuple[int, int, int] | None:
    """Height, width and channels of an image [h, w, c], or of a flat one: a square is grey, three times one is colour.

    None where it is neither.
    """
    if len(shape) == 3:
        return shape
    for channels in (1, 3):
        side = isqrt(prod(shape) // channels)
        if len(shape) == 1 and side * side * channels == shape[0]:
            return side, side, channels
    return None
