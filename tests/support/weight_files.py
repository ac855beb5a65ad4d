"""Weight files of PyTorch and safetensors, written by hand."""

import io
import json
import pickle
import struct
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from jaxclf.errors import UserError
from jaxclf.pretrained.readers import read_weights
from jaxclf.pretrained.readers.legacy import MAGIC

VALUES = np.arange(6, dtype=np.float32)
DATA = VALUES.tobytes()


def string(text):
    return b"X" + struct.pack("<I", len(text)) + text.encode()


def integer(value):
    return pickle.dumps(value, 2)[2:-1]


def numbers(*values):
    return b"(" + b"".join(map(integer, values)) + b"t"


def load(module, name):
    return f"c{module}\n{name}\n".encode()


def storage(kind="FloatStorage", key="0", size=6):
    return b"(" + string("storage") + load("torch", kind) + string(key) + string("cpu") + integer(size) + b"tQ"


def tensor(source=None, offset=0, shape=(6,), strides=(1,)):
    """The pickled call that rebuilds a tensor, without the fields that do not matter."""
    arguments = (source or storage()) + integer(offset) + numbers(*shape) + numbers(*strides)
    return load("torch._utils", "_rebuild_tensor_v2") + b"(" + arguments + b"\x89NtR"


def mapping(**items):
    """A pickled dict of pickled values."""
    return b"}(" + b"".join(string(key) + value for key, value in items.items()) + b"u"


def make_zip(state, data=DATA, **entries):
    """A PyTorch file in the zip format with one storage."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in {"data.pkl": b"\x80\2" + state + b".", "data/0": data, **entries}.items():
            archive.writestr(f"archive/{name}", content)
    return file.getvalue()


def make_legacy(state, data=DATA, count=6, system=None):
    """A PyTorch file in the legacy format with one storage."""
    header = [pickle.dumps(value, 2) for value in (MAGIC, 1001, system or {"little_endian": True})]
    return b"".join([*header, b"\x80\2" + state + b".", pickle.dumps(["0"], 2), struct.pack("<q", count), data])


def make_safetensors(kind, shape, data, **more):
    header = json.dumps({"x": {"dtype": kind, "shape": shape, "data_offsets": [0, len(data)]}, **more}).encode()
    return struct.pack("<Q", len(header)) + header + data


def read(content):
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "some-weights"
        path.write_bytes(content)
        return read_weights(path)


def read_or_refuse(content):
    """The copied arrays, or None where the file was refused by its name in a few lines."""
    try:
        return {name: array.copy() for name, array in read(content).arrays.items()}
    except UserError as error:
        assert "some-weights" in str(error)
        assert len(str(error)) < 1000
        return None


def refuse(content, match):
    with pytest.raises(UserError, match=match):
        read(content)


FORMATS = pytest.mark.parametrize("make", [make_zip, make_legacy], ids=["zip", "legacy"])
