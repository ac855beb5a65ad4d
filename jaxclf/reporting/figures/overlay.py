"""A map laid over its image, as pixels."""

from __future__ import annotations

import numpy as np
from PIL import Image

from jaxclf.reporting.figures.maps import colour_strength

RAISES, LOWERS = (255, 60, 40), (60, 130, 255)  # bright, so that they are seen on black
GREY = (0.299, 0.587, 0.114)  # what red, green and blue add to brightness
LEAST_SIDE = 280  # pixels; smaller images are enlarged


def overlay(image: np.ndarray, values: np.ndarray) -> np.ndarray:
    """An image of integers [h, w, c] in grey under its map [h', w', c'], as a picture: red raises, blue lowers.

    Channels of the map are summed; the colours end where they do in a grid of maps. A map that is smaller is enlarged
    smoothly.
    """
    height, width, channels = image.shape
    strength = Image.fromarray(colour_strength(values)).resize((width, height), Image.Resampling.BILINEAR)
    strength = np.asarray(strength)[..., np.newaxis]
    grey = image @ np.array(GREY if channels == 3 else (1,), np.float32)
    colours = np.where(strength > 0, np.array(RAISES), np.array(LOWERS))
    blended = grey[..., np.newaxis] * (1 - np.abs(strength)) + colours * np.abs(strength)
    times = -(-LEAST_SIDE // max(height, width))
    return blended.round().astype(np.uint8).repeat(times, axis=0).repeat(times, axis=1)
