"""Arrays of a PyTorch file in the zip format, since PyTorch 1.6: a pickle, and an entry for each storage."""

from __future__ import annotations

import sys
from collections.abc import Collection

import numpy as np

from jaxclf.errors import UserError, require
from jaxclf.pretrained.readers.buffers import make_array, read_elements, shorten
from jaxclf.pretrained.readers.state_dict import SAVE, select_state_dict
from jaxclf.pretrained.readers.tensors import Storage, find_global, find_storage
from jaxclf.pretrained.readers.unpickling import BYTES, read_pickle
from jaxclf.pretrained.readers.zip_entries import map_entries, read_directory

PICKLE = "data.pkl"


def read_torch_zip(content: memoryview) -> dict[str, np.ndarray]:
    """Return the arrays of the state dict in a file.

    Args:
        content: The bytes of the file.

    Raises:
        UserError: If the file is damaged, a TorchScript archive or not of PyTorch, or holds anything but tensors.
    """
    entries = read_directory(content)
    folder = _find_folder(entries)
    files = map_entries(content, entries)
    pickle = files[folder + PICKLE]
    require(len(pickle) <= BYTES, f"its {PICKLE} has {len(pickle)} bytes, a state dict at most {BYTES}\n{SAVE}")
    tensors = select_state_dict(read_pickle(pickle, find_global, find_storage)[0])
    order = bytes(files.get(f"{folder}byteorder", b"little"))
    require(order in (b"little", b"big"), f"its byte order is {shorten(ascii(order))}; download it again")
    swap = order.decode() != sys.byteorder
    storages = {tensor.storage for tensor in tensors.values()}
    data = {storage: _read_storage(storage, files.get(f"{folder}data/{storage.key}"), swap) for storage in storages}
    return {
        name: make_array(data[tensor.storage], tensor.storage.dtype, tensor.shape, tensor.offset, tensor.strides)
        for name, tensor in tensors.items()
    }


def _find_folder(names: Collection[str]) -> str:
    """Return the folder of the archive, with a slash at the end."""
    folders = [name.removesuffix(PICKLE) for name in names if name.count("/") == 1 and name.endswith(f"/{PICKLE}")]
    if len(folders) != 1:
        raise UserError(f"it is a zip file, but not of PyTorch, which has one {PICKLE}\n{SAVE}")
    script = [name for name in names if name.startswith((f"{folders[0]}code/", f"{folders[0]}constants.pkl"))]
    require(not script, f"it is a TorchScript archive, which is a program\nload it by torch.jit.load, and {SAVE}")
    return folders[0]


def _read_storage(storage: Storage, content: memoryview | None, swap: bool) -> memoryview:
    found = "is missing" if content is None else f"has {len(content)} bytes"
    size = storage.size * storage.dtype.itemsize
    if content is None or len(content) != size:
        raise UserError(f"its storage {shorten(storage.key)} {found} where the pickle says {size}; download it again")
    return read_elements(content, storage.dtype, swap)
