"""Encoded pictures in records, decoded by index: what tfds.py reads of the files TensorFlow Datasets prepares."""

from __future__ import annotations

import io
import mmap
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxclf.errors import UserError, require

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}  # Pillow's, by the number of channels


@dataclass(frozen=True, eq=False)
class EncodedPictures:
    """Images [n, h, w, c] of the rows of a split, decoded when asked for. Threads may share them."""

    title: str
    records: Sequence[Any]
    rows: np.ndarray
    parse: Callable[[Any], tuple[bytes, int]]
    image_shape: tuple[int, int, int]
    resize: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """Number, height, width and channels of the images."""
        return len(self.rows), *self.image_shape

    def __getitem__(self, indices: Any) -> np.ndarray:
        rows = np.asarray(self.rows[indices])
        images = np.empty((*rows.shape, *self.image_shape), np.uint8)
        for place, row in np.ndenumerate(rows):
            with explained(f"cannot read example {row} {self.title}"):
                images[place] = decode(self.parse(self.records[row])[0], self.image_shape, self.resize)
        return images

    def labels(self) -> np.ndarray:
        """The label of every row, as integers [n]."""
        labels = np.empty(len(self.rows), np.int32)
        for place, row in enumerate(self.rows):
            with explained(f"cannot read example {row} {self.title}"):
                labels[place] = self.parse(self.records[row])[1]
        return labels


def decode(encoded: bytes, shape: tuple[int, int, int], resize: bool) -> np.ndarray:
    """A PNG, JPEG or other picture as bytes [h, w, c], resized (bilinear) or checked to be of that size."""
    height, width, channels = shape
    with Image.open(io.BytesIO(encoded)) as picture:
        require(picture.mode[0] not in "IF", f"its mode is {picture.mode}, expected 8 bits a channel")
        pixels = picture.convert(MODES[channels])
    if resize:
        pixels = pixels.resize((width, height), Image.Resampling.BILINEAR)
    require(pixels.size == (width, height), f"it is {pixels.height}x{pixels.width}, expected {height}x{width}")
    return np.asarray(pixels).reshape(shape)


def tfrecords(path: Path) -> list[memoryview]:
    """The records of a TFRecord file, left on disk. Their checksums, CRC-32C, are not checked: Python has none."""
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
def explained(what: str, fix: str = "; prepare it again") -> Iterator[None]:
    """Make any error of the block a UserError of one line that begins with what was wanted."""
    try:
        yield
    except Exception as error:  # Pillow, protobuf, array_record and TFDS raise errors of many kinds
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        raise UserError(f"{what}: {kind}{str(error).strip().partition(chr(10))[0]}{fix}") from error
