"""Brightness, contrast, saturation and hue."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Float, Key

from jaxclf.augment.base import Image
from jaxclf.errors import UserError, require
from jaxclf.types import Array

LUMA = (0.2989, 0.587, 0.114)  # weights of red, green and blue in gray, as in torchvision
Factor = Float[Array, ""] | float


@dataclass(frozen=True)
class ColorJitter:
    """Change brightness, contrast, saturation and hue at random.

    The first three are one linear map, clipped once; the hue comes last. A factor is drawn from
    [max(0, 1 - x), 1 + x]; 1 changes nothing.
    """

    brightness: float = 0.0
    """Range x of the factor of all values."""
    contrast: float = 0.0
    """Range x of the factor of the distance from the mean gray of the image."""
    saturation: float = 0.0
    """Range x of the factor of the distance from the gray of each pixel. For three channels."""
    hue: float = 0.0
    """Largest turn of the hue in either direction, in turns: 0 to 0.5. For three channels."""

    def __post_init__(self):
        for name in ("brightness", "contrast", "saturation"):
            require(getattr(self, name) >= 0, f"{name}={getattr(self, name)}: expected at least 0")
        require(0 <= self.hue <= 0.5, f"hue={self.hue}: expected 0 to 0.5")

    def __call__(self, key: Key[jax.Array, ""], image: Image) -> Image:
        """Return an image [h, w, c] in other colors."""
        channels = image.shape[2]
        require(
            channels == 3 or not (self.saturation or self.hue),
            f"ColorJitter changes the saturation or hue of images with 3 channels, and these have {channels}: "
            "set saturation=0 and hue=0",
        )
        ranges = jnp.array([self.brightness, self.contrast, self.saturation])
        drawn = jax.random.uniform(key, (4,), minval=-1)
        brightness, contrast, saturation = jnp.maximum(1 + ranges * drawn[:3], 0)
        image = adjust_color(image, brightness, contrast, saturation)
        return shift_hue(image, self.hue * drawn[3]) if self.hue else image


def adjust_color(image: Image, brightness: Factor = 1.0, contrast: Factor = 1.0, saturation: Factor = 1.0) -> Image:
    """Change brightness, contrast and saturation by one linear map of the channels of a pixel.

    Args:
        image: An image [h, w, c] with 1 or 3 channels.
        brightness: The factor of all values.
        contrast: The factor of the distance from the mean gray of the image.
        saturation: The factor of the distance from the gray of the pixel.

    Returns:
        An image of the same shape and dtype. Integers are rounded down, as in torchvision.
    """
    gray = get_gray_weights(image.shape[2])
    mean = jnp.sum(gray * image.mean((0, 1), dtype=jnp.float32))
    scale = brightness * contrast
    # Gray stays the same when the saturation changes, so the three maps can be exchanged.
    matrix = scale * (saturation * jnp.eye(len(gray)) + (1 - saturation) * gray[None])
    offset = (1 - contrast) * brightness * mean
    # A sum of scaled channels: accelerators would round the factors of a small matrix product.
    values = sum(
        (image[..., j : j + 1] * matrix[None, None, :, j] for j in range(len(gray))), start=offset.reshape(1, 1, 1)
    )
    return clip_like(values, image)


def get_gray_weights(channels: int) -> Float[Array, " c"]:
    """Return the weight of each channel in gray; raise UserError unless there are 1 or 3 channels."""
    if channels not in (1, 3):
        raise UserError(f"colors can be changed in images of 1 or 3 channels, and these have {channels}")
    return jnp.array(LUMA if channels == 3 else (1.0,))


def shift_hue(image: Image, turns: Factor) -> Image:
    """Turn the hue of an RGB image.

    Args:
        image: An image [h, w, 3].
        turns: The angle in turns: red becomes green at 1/3.

    Returns:
        An image of the same shape and dtype, with the same saturation and value (HSV) in each pixel.
    """
    bound = get_bound(image)
    x = image / bound
    value, low = x.max(-1), x.min(-1)
    chroma = value - low
    red, green, blue = jnp.moveaxis((value[..., None] - x) / jnp.where(chroma == 0, 1, chroma)[..., None], -1, 0)
    is_red, is_green = x[..., 0] == value, x[..., 1] == value
    sector = jnp.where(is_red, blue - green, jnp.where(is_green, 2 + red - blue, 4 + green - red))
    hue = jnp.where(chroma == 0, 0, sector) + 6 * turns
    # Each channel is a trapezoid of the hue: 1 within one sector of its primary color, 0 beyond two.
    distance = jnp.abs((hue[..., None] - jnp.array([[[0, 2, 4]]]) + 3) % 6 - 3)
    turned = low[..., None] + chroma[..., None] * jnp.clip(2 - distance, 0, 1)
    return clip_like(turned * (bound + 0.999 if bound == 255 else 1), image)


def get_bound(image: Array) -> float:
    """Return the value of white: 255 for integers, 1 for floats."""
    return 255.0 if jnp.issubdtype(image.dtype, jnp.integer) else 1.0


def clip_like(values: Float[Array, "h w c"], image: Array) -> Image:
    """Return values in the range and the dtype of an image. Integers are rounded down, as in torchvision."""
    return jnp.clip(values, 0, get_bound(image)).astype(image.dtype)
