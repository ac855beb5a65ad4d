"""Preprocessing of image files for a network: resizing as in training and, for scans, inversion and centering."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Num, Shaped, UInt8
from PIL import Image

from jaxclf.datasets.decoding import File, describe_fault, open_image, read_image
from jaxclf.datasets.resizing import Resizing
from jaxclf.errors import require

Invert = Literal["auto", "yes", "no"]
PAPER = 0.75  # fraction of the border that is light on paper: objects that are bright on black may touch the border too
INK = 0.3  # threshold of ink, from paper (0) to the strongest ink (1); values below may be noise
BOX = 20 / 28  # fraction of the image's side that the digits of MNIST fill
DETAIL = 10  # pixels of a scan per pixel of the image; larger scans are averaged to this first


class PreprocessedImage(NamedTuple):
    """An image as a network takes it."""

    image: Num[np.ndarray, "h w c"]
    """uint8; floats in [0, 1] if the evaluation transform of a run has resized it."""
    inverted: bool


@dataclass(frozen=True)
class Preprocessor:
    """Reads image files as a network takes them.

    The pixels are the same as in training, except that grayscale images may be inverted and centered.

    Args:
        image_shape: Height, width and channels: 3 for RGB, 1 for grayscale.
        invert: For grayscale: invert all images, none, or those that are dark on light, which no image of MNIST is.
        center: For grayscale: scale and center what is written, as in MNIST.
        resizing: How images are resized.

    Raises:
        UserError: If the options do not fit the number of channels.
    """

    image_shape: tuple[int, int, int]
    invert: Invert = "auto"
    center: bool = False
    resizing: Resizing = Resizing()

    def __post_init__(self):
        channels = self.image_shape[2]
        require(channels in (1, 3), f"the network takes images of {channels} channels: expected 1 or 3 for image files")
        for flag, given in (("--invert yes", self.invert == "yes"), ("--center", self.center)):
            require(channels == 1 or not given, f"{flag} is for networks of grayscale images; this one takes RGB")

    def __call__(self, file: File) -> PreprocessedImage:
        """Read an image file of any size.

        Raises:
            OSError, ValueError and others: If the file is damaged.
        """
        height, width, channels = self.image_shape
        if self.center:
            image = _to_gray(self._open_scan(file))
        else:
            resized = read_image(file, (height, width), self.resizing)
            if channels == 3:
                return PreprocessedImage(resized, inverted=False)
            image = _to_gray(Image.fromarray(resized))
        inverted = self.invert == "yes" or (self.invert == "auto" and is_dark_on_light(image))
        if inverted:
            image = 255 - image
        if self.center:
            image = center_digit(image, (height, width))
        return PreprocessedImage(image[..., np.newaxis], inverted)

    def try_read(self, file: File) -> PreprocessedImage | str:
        """Read an image file, or return why it cannot be read."""
        try:
            return self(file)
        except Exception as error:  # decoders raise exceptions of many types on damaged files
            return getattr(error, "strerror", None) or describe_fault(file, error)

    def _open_scan(self, file: File) -> Image.Image:
        side = DETAIL * max(self.image_shape[:2])
        scan = open_image(file, side)
        return scan.reduce(max(1, min(scan.size) // side))


def _to_gray(image: Image.Image) -> UInt8[np.ndarray, "h w"]:
    """Return the brightness of an RGB image; if its channels are equal, their exact values."""
    return np.asarray(image.convert("L"))


def _get_border(image: Shaped[np.ndarray, "h w"]) -> Shaped[np.ndarray, " n"]:
    return np.concatenate((image[0], image[-1], image[:, 0], image[:, -1]))


def is_dark_on_light(image: UInt8[np.ndarray, "h w"]) -> bool:
    """Return True if most of the border is lighter than the middle of the image's range of values."""
    middle = (int(image.min()) + int(image.max())) / 2
    return float(np.mean(_get_border(image) > middle)) >= PAPER


def center_digit(image: UInt8[np.ndarray, "h w"], image_size: tuple[int, int]) -> UInt8[np.ndarray, "height width"]:
    """Scale and center what is written, light on dark, as in MNIST; see http://yann.lecun.com/exdb/mnist.

    The bounding box is scaled to 20/28 of the image, keeping its aspect ratio, and the center of mass moved to the
    middle. The brightness of the border becomes black and the strongest ink white.

    Args:
        image: A scan of any size.
        image_size: Height and width of the result.

    Raises:
        ValueError: If nothing is lighter than the border.
    """
    ink = _stretch_contrast(image)
    rows, columns = (np.flatnonzero((ink > INK).any(axis=axis)) for axis in (1, 0))
    box = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = BOX * min(image_size) / max(box.shape)
    height, width = (max(1, round(scale * side)) for side in box.shape)
    box = np.asarray(Image.fromarray(box).resize((width, height), Image.Resampling.BILINEAR))
    top, left = (_find_offset(box.sum(axis=1 - axis), image_size[axis]) for axis in (0, 1))
    centered = np.zeros(image_size, np.float32)
    centered[top : top + height, left : left + width] = box
    return np.round(255 * centered).astype(np.uint8)


def _stretch_contrast(image: UInt8[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    """Scale an image so that the median of its border is 0 and its lightest pixel 1."""
    paper, strongest = float(np.median(_get_border(image))), float(image.max())
    if strongest <= paper:
        raise ValueError("nothing in it is lighter than its border, so it cannot be centered")
    return np.clip((image.astype(np.float32) - paper) / (strongest - paper), 0, 1)


def _find_offset(mass: Float[np.ndarray, " n"], side: int) -> int:
    """Return where pixels of some mass start within `side` so that their center of mass is nearest to the middle."""
    center = float(mass @ np.arange(len(mass), dtype=mass.dtype) / mass.sum())
    # The middle of 28 is pixel 14, counted from 0, as in MNIST: the mean over its digits is 14.00.
    return min(max(round(side // 2 - center), 0), side - len(mass))
