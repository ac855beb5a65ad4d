"""Picture files of any common format and mode as RGB pixels of one size, decoded on demand by several threads."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from jaxclf.errors import UserError

# Only these decoders are tried: others of Pillow's start programs or read formats nobody trains on.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "WEBP")
PIXEL_LIMIT = 80_000_000  # of one file; checked before its pixels are decoded
WHITE = (255, 255, 255, 255)


def read_picture(path: Path, image_size: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
    """The first frame of a picture file, upright, in RGB, resized to (height, width).

    What is transparent becomes white; 16-bit grey is scaled to 8. Raises OSError, ValueError and others on damage.
    """
    height, width = image_size
    return np.asarray(open_picture(path, 2 * max(image_size)).resize((width, height), Image.Resampling.BILINEAR))


def open_picture(path: Path, side: int) -> Image.Image:
    """What `read_picture` resizes: of its own size, or of a part of it where a JPEG is much larger than `side`."""
    with Image.open(path, formats=FORMATS) as image:
        if image.width * image.height > PIXEL_LIMIT:
            raise ValueError(f"{image.width} x {image.height} pixels, more than {PIXEL_LIMIT:,}")
        image.draft(None, (side, side))  # a large JPEG is decoded to about what is needed
        return _rgb(_upright(image))


def _upright(image: Image.Image) -> Image.Image:
    image.load()  # what is wrong with the pixels is no matter of EXIF
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # of EXIF that is damaged; the picture is not
        return image


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        values = np.asarray(image)
        eight_bits = np.round(values / 257).clip(0, 255)
        eight_bits[values == image.info.get("transparency", -1)] = WHITE[0]
        image = Image.fromarray(eight_bits.astype(np.uint8))
    if image.has_transparency_data:
        colour = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", colour.size, WHITE), colour)
    return image.convert("RGB")


def fault(path: Path) -> str | None:
    """Why a picture file cannot be read, or None; raises OSError where the system, not the file, is at fault."""
    try:
        read_picture(path, (1, 1))
    except Exception as error:  # decoders of damaged files raise whatever comes
        if isinstance(error, MemoryError) or getattr(error, "errno", None) is not None:
            raise
        return in_words(path, error)
    return None


def in_words(path: Path, error: Exception) -> str:
    """What is wrong with a picture file, by the error that reading it raised."""
    if path.stat().st_size == 0:
        return "the file is empty"
    return str(error).replace(str(path), "it").replace("\n", " ") or type(error).__name__


@cache
def decoders() -> ThreadPoolExecutor:
    """The threads that decode, one a core: Pillow lets go of Python while it works."""
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="decode")


class Pictures:
    """Picture files as images [n, height, width, 3] by index. `keep` holds on to what was decoded once."""

    def __init__(self, paths: Sequence[Path], image_size: tuple[int, int], keep: bool):
        self.paths = tuple(paths)
        self.shape = (len(self.paths), *image_size, 3)
        self._kept = np.empty(self.shape, np.uint8) if keep else None
        self._ready = np.zeros(len(self.paths), bool)

    def __getitem__(self, indices: slice | np.ndarray) -> UInt8[np.ndarray, "b h w 3"]:
        """The images at a slice or an array of indices; raises UserError that names a file no longer readable."""
        chosen = np.arange(len(self.paths))[indices]
        if self._kept is None:
            return self._decode(chosen)
        missing = np.unique(chosen[~self._ready[chosen]])
        if len(missing):
            self._kept[missing] = self._decode(missing)
            self._ready[missing] = True  # last: other threads read what is ready
        return self._kept[chosen]

    def _decode(self, indices: np.ndarray) -> np.ndarray:
        images = np.empty((len(indices), *self.shape[1:]), np.uint8)
        for i, image in enumerate(
            decoders().map(partial(_read_again, image_size=self.shape[1:3]), map(self.paths.__getitem__, indices))
        ):
            images[i] = image
        return images


def _read_again(path: Path, image_size: tuple[int, int]) -> np.ndarray:
    try:
        return read_picture(path, image_size)
    except Exception as error:
        raise UserError(f"{path} was readable and no longer is: {error}") from error
