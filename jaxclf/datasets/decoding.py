"""Image files of any common format and mode as RGB arrays of one size, decoded on demand by several threads."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from jaxclf.datasets.pillow import FORMATS, collect_warnings
from jaxclf.datasets.resizing import Resizing
from jaxclf.errors import UserError

PIXEL_LIMIT = 80_000_000  # of one file; checked before its pixels are decoded
WHITE = (255, 255, 255, 255)

File = Path | io.BytesIO


def read_image(
    file: File,
    image_size: tuple[int, int],
    resizing: Resizing = Resizing(),
) -> UInt8[np.ndarray, "h w 3"]:
    """Read the first frame of an image file, upright by its EXIF orientation, in RGB.

    Transparent pixels become white, and 16-bit grayscale is scaled to 8 bits.

    Args:
        file: The file.
        image_size: Height and width to resize to.
        resizing: How it is resized.

    Raises:
        OSError, ValueError and others: If the file is damaged.
    """
    return np.asarray(resizing(open_image(file, 2 * max(image_size)), image_size))


def open_image(file: File, side: int) -> Image.Image:
    """Open an image file as `read_image` does, without resizing; a JPEG much larger than `side` is reduced."""
    with collect_warnings(), Image.open(file, formats=FORMATS) as image:
        if image.width * image.height > PIXEL_LIMIT:
            raise ValueError(f"{image.width} x {image.height} pixels, more than {PIXEL_LIMIT:,}")
        image.draft(None, (side, side))  # decodes a JPEG at a half, a quarter or an eighth of its size, which is faster
        return to_upright_rgb(image)


def to_upright_rgb(image: Image.Image) -> Image.Image:
    """Return an image as `read_image` does, without resizing: upright by its EXIF orientation, in RGB.

    Raises:
        OSError, ValueError and others: If its file is damaged, or its pixels are floats.
    """
    return _to_rgb(_apply_orientation(image))


def _apply_orientation(image: Image.Image) -> Image.Image:
    image.load()  # outside of `try`: damaged pixels are an error
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # the EXIF data is damaged, the image is not
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("floating-point pixels, whose range is unknown; convert it to 8 or 16 bits")
    if image.mode.startswith("I"):
        # Pillow clips 16 bits to 8 rather than scaling them.
        values = np.asarray(image)
        eight_bits = np.round(values / 257).clip(0, 255)
        eight_bits[values == image.info.get("transparency", -1)] = WHITE[0]
        image = Image.fromarray(eight_bits.astype(np.uint8))
    if image.has_transparency_data:
        color = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", color.size, WHITE), color)
    return image if image.mode == "RGB" else image.convert("RGB")


def find_fault(file: File) -> str | None:
    """Return why an image file cannot be read, or None; raise OSError for errors of the system, not of the file."""
    try:
        read_image(file, (1, 1))
    except Exception as error:  # decoders raise exceptions of many types on damaged files
        if isinstance(error, MemoryError) or getattr(error, "errno", None) is not None:
            raise
        return describe_fault(file, error)
    return None


def describe_fault(file: File, error: Exception) -> str:
    """Return the message for an image file that could not be read."""
    if (file.stat().st_size if isinstance(file, Path) else file.getbuffer().nbytes) == 0:
        return "the file is empty"
    if isinstance(error, UnidentifiedImageError):
        if _is_heif(file):
            return "a HEIF image; pip install 'jaxclf[heic]', or convert it to JPEG"
        return f"cannot identify image file; convert it to PNG or JPEG (can be read: {', '.join(FORMATS)})"
    message = str(error)
    for name in (repr(str(file)), repr(file)):  # the path precedes the message in every list
        message = message.replace(f" {name}", "")
    return message.replace(str(file), "it").replace("\n", " ") or type(error).__name__


def _is_heif(file: File) -> bool:
    """Return whether a file is a HEIF image, as cameras of phones write."""
    with file.open("rb") if isinstance(file, Path) else io.BytesIO(file.getbuffer()[:12]) as opened:
        content = opened.read(12)
    return content[4:8] == b"ftyp" and content[8:12] in (b"heic", b"heix", b"hevc", b"mif1", b"msf1")


@cache
def get_decoders() -> ThreadPoolExecutor:
    """Return the decoding threads, one per core: Pillow releases Python's lock while it decodes."""
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="decode")


class ImageFiles:
    """Image files as images [n, height, width, 3] by index.

    Args:
        paths: The files.
        image_size: Height and width to resize to.
        keep: Keep decoded images in memory.
        resizing: How they are resized.
    """

    def __init__(self, paths: Sequence[Path], image_size: tuple[int, int], keep: bool, resizing: Resizing = Resizing()):
        self.paths, self.resizing = tuple(paths), resizing
        self.shape = (len(self.paths), *image_size, 3)
        try:
            self._kept = np.empty(self.shape, np.uint8) if keep else None
        except MemoryError as error:
            fix = "--dataset.keep-mib 0 decodes them again in every epoch"
            raise UserError(f"out of memory for images {list(self.shape)}; {fix}") from error
        self._ready = np.zeros(len(self.paths), bool)

    def __getitem__(self, indices: slice | np.ndarray) -> UInt8[np.ndarray, "b h w 3"]:
        """Return the images at a slice or an array of indices; raise UserError for a file that became unreadable."""
        chosen = np.arange(len(self.paths))[indices]
        if self._kept is None:
            return self._decode(chosen)
        missing = np.unique(chosen[~self._ready[chosen]])
        if len(missing):
            self._kept[missing] = self._decode(missing)
            self._ready[missing] = True  # last: other threads use what is ready
        return self._kept[chosen]

    def _decode(self, indices: np.ndarray) -> np.ndarray:
        images = np.empty((len(indices), *self.shape[1:]), np.uint8)
        read = partial(_read_again, image_size=self.shape[1:3], resizing=self.resizing)
        for i, image in enumerate(get_decoders().map(read, map(self.paths.__getitem__, indices))):
            images[i] = image
        return images


def _read_again(path: Path, image_size: tuple[int, int], resizing: Resizing) -> np.ndarray:
    try:
        return read_image(path, image_size, resizing)
    except Exception as error:
        raise UserError(f"{path} was readable before and is not now: {error}") from error
