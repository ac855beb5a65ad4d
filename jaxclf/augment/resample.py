"""Bilinear resampling of images, and affine warps."""

from __future__ import annotations

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Float, Int

from jaxclf.augment.base import Image, OutputImage
from jaxclf.types import Array

Interpolation = Literal["nearest", "bilinear"]


def resize_crop(image: Image, box: Int[Array, " 4"], size: tuple[int, int]) -> OutputImage:
    """Resize a part of an image with bilinear interpolation, without antialiasing.

    Args:
        image: An image [h, w, c].
        box: Top, left, height and width of the part, in pixels.
        size: Height and width of the result.

    Returns:
        An image of the same dtype; integers are rounded.
    """
    resized = image
    for axis in (0, 1):
        start, length, count = box[axis], box[axis + 2], size[axis]
        # The centers of pixels correspond. Outside the centers of the first and last pixel their values continue.
        points = jnp.clip((jnp.arange(count) + 0.5) * (length / count) - 0.5, 0, length - 1) + start
        resized = _interpolate_along(resized, points, axis)
    return round_like(resized, image)


def _interpolate_along(image: Image, points: Float[Array, " n"], axis: int) -> OutputImage:
    """Interpolate linearly at points along an axis: two gathers of whole rows or columns."""
    first = jnp.floor(points).astype(int)
    weight = jnp.expand_dims(points - first, [other for other in range(3) if other != axis])
    before, after = (jnp.take(image, index, axis, mode="clip") for index in (first, first + 1))
    return (1 - weight) * before + weight * after


def warp(image: Image, matrix: Float[Array, "3 3"], interpolation: Interpolation = "bilinear") -> Image:
    """Move the pixels of an image by an affine map, padding with zeros.

    Args:
        image: An image [h, w, c].
        matrix: Maps a point (x, y, 1) of the result to the point of the image that is shown there. Points are in
            pixels from the center of the image, x to the right and y down.
        interpolation: Bilinear, or the nearest pixel.

    Returns:
        An image of the same shape and dtype; integers are rounded.
    """
    height, width, _ = image.shape
    middle_y, middle_x = (height - 1) / 2, (width - 1) / 2
    down, right = jnp.arange(height)[:, None] - middle_y, jnp.arange(width)[None] - middle_x
    y = matrix[1, 1] * down + matrix[1, 0] * right + matrix[1, 2] + middle_y
    x = matrix[0, 0] * right + matrix[0, 1] * down + matrix[0, 2] + middle_x
    if interpolation == "nearest":
        pixels, inside = _gather_pixels(image, jnp.rint(y).astype(int), jnp.rint(x).astype(int))
        return jnp.where(inside[..., None], pixels, 0)
    top, left = jnp.floor(y).astype(int), jnp.floor(x).astype(int)
    corners = ((row, column) for row in (top, top + 1) for column in (left, left + 1))
    warped = sum((_weigh_pixels(image, row, column, y, x) for row, column in corners), start=jnp.zeros(image.shape))
    return round_like(warped, image)


def _weigh_pixels(
    image: Image, row: Int[Array, "h w"], column: Int[Array, "h w"], y: Float[Array, "h w"], x: Float[Array, "h w"]
) -> Float[Array, "h w c"]:
    """Return pixels at `row`, `column` times their bilinear weights at the points `y`, `x`."""
    pixels, inside = _gather_pixels(image, row, column)
    weight = jnp.where(inside, (1 - jnp.abs(y - row)) * (1 - jnp.abs(x - column)), 0)
    return weight[..., None] * pixels.astype(jnp.float32)


def _gather_pixels(image: Image, row: Int[Array, "h w"], column: Int[Array, "h w"]):
    """Return the pixels at `row`, `column`, or the nearest ones, and whether they are inside the image."""
    height, width, _ = image.shape
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    return image[jnp.clip(row, 0, height - 1), jnp.clip(column, 0, width - 1)], inside


def round_like(values: Float[Array, "h w c"], image: Array) -> Image:
    """Return interpolated values in the dtype of an image."""
    # Without rounding, integers would be 1/2 too dark on average.
    return (jnp.rint(values) if jnp.issubdtype(image.dtype, jnp.integer) else values).astype(image.dtype)
