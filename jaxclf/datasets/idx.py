"""Datasets in the IDX format of MNIST: Fashion-MNIST, KMNIST, EMNIST and others. http://yann.lecun.com/exdb/mnist"""

from __future__ import annotations

import gzip
import hashlib
import math
import struct
import zlib
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path

import numpy as np

from jaxclf.errors import UserError, require
from jaxclf.types import Split, Splits

DEFLATE_LIMIT = 1032  # the most bytes that one compressed byte can expand to
PARTS = {"train": ("train",), "test": ("t10k", "test")}


@dataclass(frozen=True)
class Idx:
    """The four IDX files of a dataset in one directory, gzip-compressed or not."""

    directory: str
    """Directory of `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, and the same for `t10k` or `test`."""
    prefix: str = ""
    """Prefix of the file names, for directories with several datasets (`emnist-letters-`)."""
    validation: int = 0
    """Number of the first training images to hold out for validation."""
    transposed: bool = False
    """Set if images are stored column by column, as in EMNIST."""

    def load(self) -> Splits:
        """Read the training and test images.

        Returns:
            The splits: images [n, h, w, 1], uint8. Classes are named by their numbers.

        Raises:
            UserError: If a file is missing or damaged.
        """
        return make_splits(self._read("train"), self._read("test"), self.validation)

    def _read(self, part: str) -> tuple[np.ndarray, np.ndarray]:
        images_file, labels_file = self._find(part, "images-idx3"), self._find(part, "labels-idx1")
        images, labels = read_idx(images_file), read_idx(labels_file)
        if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
            raise UserError(
                f"{images_file} has shape {list(images.shape)}, {labels_file.name} has shape {list(labels.shape)}; "
                "expected [n, height, width] and [n]"
            )
        return (images.swapaxes(1, 2) if self.transposed else images)[..., np.newaxis], labels

    def _find(self, part: str, kind: str) -> Path:
        names = [f"{self.prefix}{start}-{kind}-ubyte{end}" for start in PARTS[part] for end in ("", ".gz")]
        directory = Path(self.directory).expanduser()
        for name in names:
            if (path := directory / name).is_file():
                return path
        raise UserError(f"no IDX file in {directory.absolute()}: looked for {', '.join(names)}")


def make_splits(
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    validation: int,
    class_names: tuple[str, ...] = (),
) -> Splits:
    """Return images [n, h, w, c] and labels [n] as splits, with the first `validation` training images held out.

    Classes without names are named by their numbers.
    """
    most = len(train[1]) - 1
    require(0 <= validation <= most, f"validation={validation}: expected 0 to {most} of the training images")
    names = class_names or tuple(map(str, range(1 + max(int(labels.max(initial=0)) for _, labels in (train, test)))))

    def part(data: tuple[np.ndarray, np.ndarray], rows: slice) -> Split:
        images, labels = data
        return Split(images[rows], labels[rows].astype(np.int32), names)

    held_out = part(train, slice(validation)) if validation else None
    return Splits(part(train, slice(validation, None)), held_out, part(test, slice(None)) if len(test[1]) else None)


def read_idx(path: Path, sha256: str | None = None) -> np.ndarray:
    """Read an IDX file of unsigned bytes, compressed or not.

    Args:
        path: The file.
        sha256: Expected digest of the decompressed content; None for no check.

    Raises:
        UserError: If the file is damaged.
    """
    try:
        with path.open("rb") as file:
            compressed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if compressed else path.open("rb") as file:
            header, shape = _read_header(path, file)
            # A damaged header may name terabytes: read only as many bytes as the file can expand to.
            most = path.stat().st_size * (DEFLATE_LIMIT if compressed else 1)
            size = math.prod(shape)
            content = file.read(size + 1) if size <= most else b""
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"cannot read {path}: {error}; download it again") from error
    if len(content) != size:
        found = "more" if len(content) > size else f"{len(content)}" if size <= most else "fewer"
        raise UserError(f"{path} holds {found} bytes where its header says {size}; download it again")
    if sha256 not in (None, hashlib.sha256(header + content).hexdigest()):
        raise UserError(f"{path} is damaged: its SHA-256 is not {sha256}; install jaxclf again")
    try:
        return np.frombuffer(content, np.uint8).reshape(shape)
    except ValueError as error:  # zero bytes, but axes too long for an array
        raise UserError(f"{path} has a header of shape {list(shape)}: {error}") from error


def _read_header(path: Path, file: BufferedIOBase) -> tuple[bytes, tuple[int, ...]]:
    magic = file.read(4)
    if len(magic) < 4 or magic[:3] != b"\x00\x00\x08" or not 1 <= magic[3] <= 4:
        raise UserError(f"{path} is not an IDX file of unsigned bytes: it starts with 0x{magic.hex()}")
    sizes = file.read(4 * magic[3])
    if len(sizes) < 4 * magic[3]:
        raise UserError(f"{path} ends within its header; download it again")
    return magic + sizes, struct.unpack(f">{magic[3]}I", sizes)
