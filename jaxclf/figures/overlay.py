"""Saliency maps overlaid on images, as pixels."""

from __future__ import annotations

import numpy as np
from PIL import Image

from jaxclf.figures.maps import compute_color_strength

RAISES, LOWERS = (255, 60, 40), (60, 130, 255)  # bright enough to be visible on black
LUMA = (0.299, 0.587, 0.114)  # weights of red, green and blue in the brightness
MIN_SIDE = 280  # pixels; smaller images are enlarged


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Return an image, integers from 0 to 255 or floats in [0, 1], as uint8."""
    pixels = image if np.issubdtype(image.dtype, np.integer) else 255 * image.clip(0, 1)
    return pixels.round().astype(np.uint8)


def overlay_map(image: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Overlay a saliency map on the gray image: red raises the score, blue lowers it.

    Args:
        image: The image [h, w, c], integers from 0 to 255 or floats in [0, 1].
        values: The map [h', w', c'], bilinearly resized to the image; channels are summed.

    Returns:
        An RGB image, uint8 [h'', w'', 3], enlarged by a whole number to at least 280 pixels.
    """
    height, width, channels = image.shape
    strength = Image.fromarray(compute_color_strength(values)).resize((width, height), Image.Resampling.BILINEAR)
    strength = np.asarray(strength)[..., np.newaxis]
    gray = to_uint8(image) @ np.array(LUMA if channels == 3 else (1,), np.float32)
    colors = np.where(strength > 0, np.array(RAISES), np.array(LOWERS))
    blended = gray[..., np.newaxis] * (1 - np.abs(strength)) + colors * np.abs(strength)
    scale = -(-MIN_SIDE // max(height, width))
    return blended.round().astype(np.uint8).repeat(scale, axis=0).repeat(scale, axis=1)
