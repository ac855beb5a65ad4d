"""Picture files made ready for a network: as its training saw pictures and, where writing is scanned, as MNIST's is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped, UInt8
from PIL import Image

from jaxclf.datasets.decoding import in_words, open_picture, read_picture
from jaxclf.errors import require

Invert = Literal["auto", "yes", "no"]
PAPER = 0.75  # share of a border that is light on paper; something bright on black may touch the border too
INK = 0.3  # of the way from paper to the strongest ink: what is above is written, what is below may be noise
BOX = 20 / 28  # share of an image's side that MNIST's digits fill
DETAIL = 10  # pixels of a scan for each of the image's that are enough; of more, the mean is taken first


class Prepared(NamedTuple):
    """A picture as a network takes it."""

    image: UInt8[np.ndarray, "h w c"]
    inverted: bool


@dataclass(frozen=True)
class Preparation:
    """How a picture file becomes an image of a network: with the pixels of training, unless it is dark on light."""

    image_shape: tuple[int, int, int]
    """Height, width and channels: 3 are red, green and blue, 1 is grey."""
    invert: Invert = "auto"
    """Whether grey images are inverted; auto: where they are dark on light, which no image of MNIST is."""
    center: bool = False
    """Whether what is written on a grey picture is scaled and placed as the digits of MNIST are."""

    def __post_init__(self):
        channels = self.image_shape[2]
        require(channels in (1, 3), f"the network takes images of {channels} channels: expected 1 or 3 for pictures")
        for flag, given in (("--invert yes", self.invert == "yes"), ("--center", self.center)):
            require(channels == 1 or not given, f"{flag} is for networks of grey images; this one's have colours")

    def __call__(self, path: Path) -> Prepared:
        """Read a picture file of any size; raises OSError, ValueError and others where that cannot be done."""
        height, width, channels = self.image_shape
        if channels == 3:
            return Prepared(read_picture(path, (height, width)), inverted=False)
        picture = grey(self._large(path) if self.center else Image.fromarray(read_picture(path, (height, width))))
        inverted = self.invert == "yes" or (self.invert == "auto" and is_dark_on_light(picture))
        if inverted:
            picture = 255 - picture
        image = centered(picture, (height, width)) if self.center else picture
        return Prepared(image[..., np.newaxis], inverted)

    def attempt(self, path: Path) -> Prepared | str:
        """Read a picture file, or say why that cannot be done."""
        try:
            return self(path)
        except Exception as error:  # decoders of damaged files raise whatever comes
            return getattr(error, "strerror", None) or in_words(path, error)

    def _large(self, path: Path) -> Image.Image:
        enough = DETAIL * max(self.image_shape[:2])
        picture = open_picture(path, enough)
        return picture.reduce(max(1, min(picture.size) // enough))


def grey(picture: Image.Image) -> UInt8[np.ndarray, "h w"]:
    """The brightness of a picture; that of a grey one is its own, to the bit."""
    return np.asarray(picture.convert("L"))


def border(picture: Shaped[np.ndarray, "h w"]) -> Shaped[np.ndarray, " n"]:
    """The pixels along the four sides of a picture."""
    return np.concatenate((picture[0], picture[-1], picture[:, 0], picture[:, -1]))


def is_dark_on_light(picture: UInt8[np.ndarray, "h w"]) -> bool:
    """Whether nearly all of the border is lighter than the middle between the darkest and the lightest pixel."""
    middle = (int(picture.min()) + int(picture.max())) / 2
    return float(np.mean(border(picture) > middle)) >= PAPER


def centered(picture: UInt8[np.ndarray, "h w"], image_size: tuple[int, int]) -> UInt8[np.ndarray, "height width"]:
    """What is written, light on dark, as an image of MNIST; see http://yann.lecun.com/exdb/mnist.

    Its box is scaled to 20/28 of the image and keeps its aspect ratio; its centre of mass comes to the middle. The
    border's brightness becomes black, and the strongest ink white. Raises ValueError where nothing is written.
    """
    ink = contrasted(picture)
    rows, columns = (np.flatnonzero((ink > INK).any(axis=axis)) for axis in (1, 0))
    box = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = BOX * min(image_size) / max(box.shape)
    height, width = (max(1, round(scale * side)) for side in box.shape)
    box = np.asarray(Image.fromarray(box).resize((width, height), Image.Resampling.BILINEAR))
    top, left = (start(box.sum(axis=1 - axis), image_size[axis]) for axis in (0, 1))
    image = np.zeros(image_size, np.float32)
    image[top : top + height, left : left + width] = box
    return np.round(255 * image).astype(np.uint8)


def contrasted(picture: UInt8[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    """A picture with the median of its border as 0 and its lightest pixel as 1; ValueError where they are the same."""
    paper, strongest = float(np.median(border(picture))), float(picture.max())
    if strongest <= paper:
        raise ValueError("nothing on it is lighter than its border, so there is nothing to centre")
    return np.clip((picture.astype(np.float32) - paper) / (strongest - paper), 0, 1)


def start(mass: Float[np.ndarray, " n"], side: int) -> int:
    """Where a row of pixels begins within `side` so that its centre of mass is in the middle, or nearest to it.

    The middle of 28 is pixel 14, counted from 0, as in MNIST: on average over its digits it is 14.00.
    """
    centre = float(mass @ np.arange(len(mass), dtype=mass.dtype) / mass.sum())
    return min(max(round(side // 2 - centre), 0), side - len(mass))
