"""Arrays of a PyTorch file in the format before PyTorch 1.6: five pickles, and the storages one after the other."""

from __future__ import annotations

import struct
import sys

import numpy as np

from jaxclf.errors import UserError, require
from jaxclf.pretrained.readers.buffers import make_array, read_elements, shorten
from jaxclf.pretrained.readers.state_dict import SAVE, select_state_dict
from jaxclf.pretrained.readers.tensors import Storage, find_global, find_storage
from jaxclf.pretrained.readers.unpickling import read_pickle

MAGIC = 0x1950A86A20F9469CFC6C
VERSION = 1001


def is_legacy(head: bytes) -> bool:
    """Whether a file starts with the magic number, in a pickle of any protocol."""
    return any(number in head[:40] for number in (MAGIC.to_bytes(10, "little"), str(MAGIC).encode()))


def read_legacy(content: memoryview) -> dict[str, np.ndarray]:
    """Return the arrays of the state dict in a file.

    Args:
        content: The bytes of the file.

    Raises:
        UserError: If the file is damaged, or holds anything but tensors.
    """
    storages: dict[str, Storage] = {}

    def collect(identifier: object) -> Storage:
        storage = find_storage(identifier)
        known = storages.setdefault(storage.key, storage)
        require(known == storage, f"its storage {shorten(storage.key)} has two types or sizes\n{SAVE}")
        return storage

    values, position = [], 0
    for _ in range(5):
        value, size = read_pickle(content[position:], find_global, collect)
        values.append(value)
        position += size
    magic, version, system, state, keys = values
    require(magic == MAGIC and version == VERSION, f"its version is not {VERSION}\n{SAVE}")
    little = not isinstance(system, dict) or system.get("little_endian") is not False
    require(little, f"it was written on a computer with big-endian numbers\n{SAVE}")
    tensors = select_state_dict(state)
    data = _read_storages(content[position:], keys, storages)
    return {
        name: make_array(data[tensor.storage.key], tensor.storage.dtype, tensor.shape, tensor.offset, tensor.strides)
        for name, tensor in tensors.items()
    }


def _read_storages(content: memoryview, keys: object, storages: dict[str, Storage]) -> dict[str, memoryview]:
    """Return the data of each storage, which lie in the order of the keys, each after its number of elements."""
    names = [key for key in keys if isinstance(key, str)] if isinstance(keys, list) else []
    if set(names) != storages.keys() or len(names) != len(storages):
        raise UserError("its list of storages is not that of its tensors; download it again")
    data, position = {}, 0
    for name in names:
        dtype, size = storages[name].dtype, storages[name].size
        start = position + 8
        position = start + size * dtype.itemsize
        require(position <= len(content), f"it ends within the storage {shorten(name)}; download it again")
        (found,) = struct.unpack_from("<q", content, start - 8)
        require(found == size, f"its storage {shorten(name)} has {found} elements, not {size}; download it again")
        data[name] = read_elements(content[start:position], dtype, sys.byteorder == "big")
    return data
