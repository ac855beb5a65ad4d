"""Encoded images in records, decoded by index: the part of tfds.py that reads the files of TensorFlow Datasets."""

from __future__ import annotations

import io
import mmap
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image

from jaxclf.datasets.decoding import PIXEL_LIMIT
from jaxclf.datasets.pillow import FORMATS
from jaxclf.errors import UserError, require

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}  # Pillow's, by the number of channels

Record: TypeAlias = bytes | memoryview


@dataclass(frozen=True, eq=False)
class EncodedImages:
    """Images [n, h, w, c] of some rows of a split, decoded on access. Threads may share it."""

    title: str
    """Name of the split, for error messages."""
    records: Sequence[Record]
    """The serialized examples of the whole split."""
    rows: np.ndarray
    """Indices [n] of the records to use."""
    parse: Callable[[Record], tuple[bytes, int]]
    """Returns the encoded image and the label of a record."""
    image_shape: tuple[int, int, int]
    """Height, width and channels."""
    resize: bool
    """Resize images to `image_shape`; otherwise another size is an error."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Number, height, width and channels of the images."""
        return len(self.rows), *self.image_shape

    def __getitem__(self, indices) -> np.ndarray:
        rows = np.asarray(self.rows[indices])
        images = np.empty((*rows.shape, *self.image_shape), np.uint8)
        for position, row in np.ndenumerate(rows):
            with wrap_errors(f"cannot read example {row} {self.title}"):
                images[position] = _decode(self.parse(self.records[row])[0], self.image_shape, self.resize)
        return images

    def read_labels(self) -> np.ndarray:
        """Return the labels [n] of the rows."""
        labels = np.empty(len(self.rows), np.int32)
        for position, row in enumerate(self.rows):
            with wrap_errors(f"cannot read example {row} {self.title}"):
                labels[position] = self.parse(self.records[row])[1]
        return labels


def _decode(encoded: bytes, shape: tuple[int, int, int], resize: bool) -> np.ndarray:
    """Decode a PNG, JPEG or other image to uint8 [h, w, c], and resize it (bilinear) or check its size."""
    height, width, channels = shape
    with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
        found = f"it is {image.height}x{image.width}, expected"
        if resize:
            require(image.width * image.height <= PIXEL_LIMIT, f"{found} at most {PIXEL_LIMIT:,} pixels")
        else:  # checked before the pixels are decoded: a small file may announce more than memory can hold
            require(image.size == (width, height), f"{found} {height}x{width}")
        require(image.mode[0] not in "IF", f"its mode is {image.mode}, expected 8 bits per channel")
        pixels = image.convert(MODES[channels])
    if resize:
        pixels = pixels.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(pixels).reshape(shape)


def read_tfrecords(path: Path) -> list[memoryview]:
    """Return the records of a TFRecord file, which stay on disk until they are used."""
    # Their checksums, CRC-32C, are not verified: Python's standard library cannot compute them.
    if path.stat().st_size == 0:
        return []
    with path.open("rb") as file:
        content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    records, start = [], 0
    while start + 16 <= len(content):  # a length, its checksum, the bytes, their checksum
        (size,) = struct.unpack_from("<Q", content, start)
        records.append(content[start + 12 : start + 12 + size])
        start += size + 16
    require(start == len(content), f"{path} ends within a record")
    return records


@contextmanager
def wrap_errors(message: str, fix: str = "; prepare it again") -> Iterator[None]:
    """Turn any error of the block into a UserError of one line that starts with a message."""
    try:
        yield
    except Exception as error:  # Pillow, protobuf, array_record and TFDS raise errors of many types
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        raise UserError(f"{message}: {kind}{str(error).strip().partition(chr(10))[0]}{fix}") from error
