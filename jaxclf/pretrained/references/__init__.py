"""Stored answers of published weights, computed by PyTorch in float64: a port is checked without PyTorch."""

from __future__ import annotations

from importlib.resources import files
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

PIXELS = 1024  # gradients that are stored of each image


class Reference(NamedTuple):
    """What PyTorch computed for the images of `make_reference_images`."""

    library: str
    """Versions of PyTorch and of the library of the network."""
    logits: Float[np.ndarray, "b classes"]
    gradients: Float[np.ndarray, "b pixels"]
    """Gradient of the largest logit by some of the values of pixels in [0, 1], see `take_pixels`."""


def make_reference_images(side: int) -> UInt8[np.ndarray, "2 side side 3"]:
    """Return two images that are the same on every machine: colored waves, and colored tiles."""
    rows, columns, channels = np.indices((side, side, 3))
    phase = (rows * (3 + channels) + columns * (5 - channels) + 40 * channels) % 256
    waves = np.abs(2 * phase - 255)
    tiles = ((rows // 16) * 53 + (columns // 16) * 97 + channels * 71) ** 2 % 251
    return np.stack([waves, tiles]).astype(np.uint8)


def take_pixels(gradients: Float[np.ndarray, "b h w c"]) -> Float[np.ndarray, "b pixels"]:
    """Return the values of gradients that are stored: as many of each image, evenly spread."""
    flat = gradients.reshape(len(gradients), -1)
    return flat[:, np.linspace(0, flat.shape[1] - 1, PIXELS).astype(np.int64)]


def read_reference(sha256: str) -> Reference | None:
    """Return the stored answers of weights by the digest of their file; None if there are none."""
    file = files("jaxclf.pretrained.references").joinpath(f"{sha256[:16]}.npz")
    if not file.is_file():
        return None
    with file.open("rb") as opened, np.load(opened) as arrays:
        return Reference(str(arrays["library"]), arrays["logits"], arrays["gradients"])
