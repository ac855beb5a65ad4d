"""A weight file: its format is recognized by its content, and its arrays stay on disk until they are used."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxclf.errors import UserError, require
from jaxclf.pretrained.readers.buffers import map_file
from jaxclf.pretrained.readers.legacy import is_legacy, read_legacy
from jaxclf.pretrained.readers.safetensors import is_safetensors, read_safetensors
from jaxclf.pretrained.readers.shards import read_shards
from jaxclf.pretrained.readers.torch_zip import read_torch_zip

FORMATS = "expected safetensors, the index of its shards, or a state dict of PyTorch (.pth, .pt, .bin)"
SUFFIXES = (".safetensors", ".safetensors.index.json", ".pth", ".pt", ".bin")
# What is often found in place of a weight file, by its first bytes.
OTHERS = {
    b"version https://git-lfs": "a pointer of Git LFS: run `git lfs pull`, or download the file itself",
    b"\x89HDF": "HDF5",
    b"\x1f\x8b": "compressed by gzip: decompress it",
    b"<": "a page of HTML or XML: the download gave a page instead of the file",
}


@dataclass(frozen=True, eq=False)
class WeightFile:
    """The arrays of a weight file, and its identity."""

    arrays: dict[str, np.ndarray]
    """Arrays by name, as in a PyTorch state dict. They are read-only and mostly memory-mapped: do not change the file
    while they are in use."""
    sha256: str
    """SHA-256 of the file. For shards, of the lines that `sha256sum` prints for the index and the shards by name."""


def read_weights(path: str | Path) -> WeightFile:
    """Read the arrays of a weight file without running anything from it.

    Formats are safetensors, also in shards (`model.safetensors.index.json`), and state dicts of PyTorch, in the zip
    format and in the one before PyTorch 1.6. If a PyTorch file holds the state dict under "state_dict", "model" or
    "model_state_dict", that is read and all other entries are ignored; otherwise every entry must be a tensor. Names
    of nested dicts are joined by dots, and "module." is removed if all names start with it.

    Args:
        path: The file, or the index of the shards.

    Returns:
        The arrays by name, in native byte order, and the digest of the file.

    Raises:
        UserError: If the file is missing, damaged, or holds anything but arrays of the supported types.
    """
    path = Path(path).expanduser()
    try:
        return _read(path)
    except (OSError, UserError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"cannot read the weights {path}: {reason}") from error


def _read(path: Path) -> WeightFile:
    size = path.stat().st_size
    if path.is_dir():
        raise UserError(_describe_directory(path))
    require(path.is_file() and size > 0, f"it is empty or not a regular file\n{FORMATS}")
    content = map_file(path)
    head = bytes(content[:64])
    if is_safetensors(content):
        arrays = read_safetensors(path, content)
    elif head.startswith(b"PK\x03\x04"):
        arrays = read_torch_zip(content)
    elif is_legacy(head):
        arrays = read_legacy(content)
    elif head.lstrip().startswith(b"{"):
        return WeightFile(*read_shards(path, content))
    else:
        raise UserError(f"it is {_describe_format(content)}\n{FORMATS}")
    return WeightFile(arrays, hashlib.sha256(content).hexdigest())


def _describe_format(content: memoryview) -> str:
    head = bytes(content[:512])
    if head[257:262] == b"ustar":
        return (
            "a tar file, the format of PyTorch before 2017, which is not supported; "
            "load it with PyTorch and save it again by torch.save(model.state_dict(), path)"
        )
    if head.startswith(b"\x80"):
        return "a pickle, but not of PyTorch: pickles in general are not read, because they are programs"
    found = [name for start, name in OTHERS.items() if head.startswith(start)]
    return found[0] if found else f"of an unknown format: it starts with 0x{head[:8].hex()}"


def _describe_directory(path: Path) -> str:
    names = sorted(entry.name for entry in path.iterdir() if entry.name.endswith(SUFFIXES))
    if not names:
        return f"it is a directory without weight files; {FORMATS}"
    indices = [name for name in names if name.endswith(".index.json")]
    return f"it is a directory; give a file in it, such as {', '.join((indices or names)[:5])}"
