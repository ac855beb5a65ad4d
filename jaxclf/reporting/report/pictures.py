"""Pictures that a page holds in itself, as data URIs."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from jaxclf.reporting.figures.maps import colour_strength
from jaxclf.reporting.figures.overlay import LOWERS, RAISES

SHADES = 15  # of a saliency map, so that it stays small


def data_uri(picture: Image.Image, lossless: bool) -> str:
    """A picture as the address of itself."""
    file = io.BytesIO()
    picture.save(file, "WEBP", lossless=lossless, quality=80, method=4)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def image_uri(image: np.ndarray, side: int) -> str:
    """An image [h, w, c] of integers or of floats in [0, 1], with neither side larger than `side`."""
    pixels = image if np.issubdtype(image.dtype, np.integer) else 255 * image.clip(0, 1)
    pixels = pixels.round().astype(np.uint8)
    grey = pixels.shape[-1] == 1
    picture = Image.fromarray(pixels[..., 0] if grey else pixels[..., :3])
    picture.thumbnail((side, side))
    return data_uri(picture, lossless=grey)


def layer_uri(values: np.ndarray, side: int) -> str:
    """A saliency map [h, w, c] to lay over its image: red raises, blue lowers, and what does neither is clear.

    Channels are summed; the colours end where they do in a grid of maps.
    """
    strength = colour_strength(values)
    if max(strength.shape) > side:
        smaller = Image.fromarray(strength)
        smaller.thumbnail((side, side))
        strength = np.asarray(smaller)
    colours = np.where(strength[..., np.newaxis] > 0, np.array(RAISES), np.array(LOWERS))
    opacity = np.round(np.abs(strength) * SHADES) * (255 // SHADES)
    colours = colours * (opacity > 0)[..., np.newaxis]
    layer = np.concatenate([colours, opacity[..., np.newaxis]], axis=-1)
    return data_uri(Image.fromarray(layer.astype(np.uint8), "RGBA"), lossless=True)
