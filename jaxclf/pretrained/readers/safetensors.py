"""Arrays of a safetensors file. https://github.com/huggingface/safetensors"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from jaxclf.errors import UserError, require
from jaxclf.pretrained.readers.buffers import make_array, read_elements, shorten

DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U64": np.dtype(np.uint64),
    "U32": np.dtype(np.uint32),
    "U16": np.dtype(np.uint16),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}


def is_safetensors(content: memoryview) -> bool:
    """Whether a file starts as safetensors: with the size of a JSON object in 8 bytes, and the object."""
    return bytes(content[4:9]) == b"\0\0\0\0{"


def read_safetensors(path: Path, content: memoryview) -> dict[str, np.ndarray]:
    """Return the arrays of a safetensors file.

    Args:
        path: The file.
        content: Its bytes.

    Raises:
        UserError: If the file is damaged, or has arrays of a type that NumPy and ml_dtypes do not have.
    """
    # The library checks the header, by which arrays lie one after the other without gaps. Its own arrays are copies,
    # and for NumPy it has no bfloat16.
    arrays, start = {}, 8 + int.from_bytes(content[:8], "little")
    for name, kind, shape in _read_header(path):
        require(
            kind in DTYPES,
            f"{shorten(name)} has type {kind}, which is not supported\nexpected one of {', '.join(DTYPES)}",
        )
        dtype = DTYPES[kind]
        size = dtype.itemsize * math.prod(shape)
        require(start + size <= len(content), f"it ends within {shorten(name)}; download it again")
        elements = read_elements(content[start : start + size], dtype, sys.byteorder == "big")
        arrays[name] = make_array(elements, dtype, shape)
        start += size
    require(bool(arrays), "it holds no tensors")
    return arrays


def _read_header(path: Path) -> list[tuple[str, str, list[int]]]:
    """Return name, type and shape of each array, in the order of their bytes."""
    try:
        with safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.offset_keys()}
            return [(name, part.get_dtype(), part.get_shape()) for name, part in slices.items()]
    except SafetensorError as error:
        reason = shorten(str(error).partition("\n")[0])
        raise UserError(f"it starts like safetensors, but is damaged: {reason}\ndownload it again") from error
