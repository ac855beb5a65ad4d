"""Memory-mapped files and arrays in them."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxclf.errors import UserError

SHOWN = 100  # characters of a name in a message


def map_file(path: Path) -> memoryview:
    """Return the bytes of a file that is not empty; they stay on disk until they are used."""
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def read_elements(content: memoryview, dtype: np.dtype, swap: bool = False) -> memoryview:
    """Return the bytes of elements, aligned and in native byte order: in place if possible, otherwise as a copy.

    Args:
        content: The bytes in the file.
        dtype: Type of the elements.
        swap: The byte order is not the one of this computer.
    """
    # Types of ml_dtypes cannot be swapped, integers of the same size can.
    elements = np.ndarray(len(content) // dtype.itemsize, f"u{dtype.itemsize}", content)
    if swap:
        elements = elements.byteswap()
    elif not elements.flags.aligned:
        elements = elements.copy()
    return elements.data.toreadonly().cast("B")


def make_array(
    content: memoryview, dtype: np.dtype, shape: Sequence[int], offset: int = 0, strides: Sequence[int] | None = None
) -> np.ndarray:
    """Return a read-only array of elements.

    Args:
        content: The bytes of the elements, as `read_elements` returns them.
        dtype: Type of the elements.
        shape: Shape of the array.
        offset: Index of the first element of the array.
        strides: Distance of neighbors along each axis, in elements; None if they are contiguous.

    Raises:
        UserError: If the array would leave the elements or has axes too long for NumPy.
    """
    steps = None if strides is None else [dtype.itemsize * stride for stride in strides]
    try:
        return np.ndarray(tuple(shape), dtype, content, dtype.itemsize * offset, steps)
    except (ValueError, TypeError, OverflowError) as error:
        raise UserError(f"it has an array of shape {list(shape)}, which does not fit its data") from error


def shorten(name: str) -> str:
    """Return a name from a file for a message: printable, and not longer than a line."""
    text = name if name.isprintable() else ascii(name[:SHOWN])
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
