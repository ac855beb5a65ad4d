"""Storages and tensors for the names in a PyTorch pickle. No other object is created."""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeGuard

import ml_dtypes
import numpy as np

from jaxclf.errors import UserError, require
from jaxclf.pretrained.readers.buffers import shorten
from jaxclf.pretrained.readers.unpickling import ALLOWED, Function, set_item

AXES = 64  # the most that NumPy has
CONVERT = "convert the weights to float32 with PyTorch, and save torch.save(model.state_dict(), path)"
# What is not supported, told apart from what is not allowed.
UNSUPPORTED = {
    r"torch\.QU?Int\w+Storage|torch\._utils\._rebuild_qtensor": "quantized tensors",
    r"torch\.Complex\w+Storage": "complex tensors",
    r"torch\.Float8_\w+Storage": "float8 tensors",
    r"torch\._utils\._rebuild_sparse\w*_tensor": "sparse tensors",
}
DTYPE = re.compile(r"torch\.(bool|bfloat16|u?int\d+|float\d+\w*|complex\d+)")


@dataclass(frozen=True)
class StorageType:
    """Type of the elements of a storage."""

    dtype: np.dtype


@dataclass(frozen=True)
class Storage:
    """Elements in the file, which tensors may share."""

    key: str
    """Name of the storage in the file."""
    dtype: np.dtype
    size: int
    """Number of elements."""


@dataclass(frozen=True)
class Tensor:
    """View of a storage; offset and strides count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class Constant:
    """A type or a device, which is found beside weights and not used."""

    name: str


def find_global(name: str) -> object:
    """Return the stand-in for a dotted name.

    Raises:
        UserError: If the name is not on the list.
    """
    if name in GLOBALS:
        return GLOBALS[name]
    if match := DTYPE.fullmatch(name):
        return Constant(match[1])
    for pattern, kind in UNSUPPORTED.items():
        require(not re.fullmatch(pattern, name), f"it has {kind} ({shorten(name)}), which are not supported\n{CONVERT}")
    raise UserError(f"{shorten(name)} {ALLOWED}")


def find_storage(identifier: object) -> Storage:
    """Return the storage with a persistent identifier: ("storage", type, key, device, size).

    Raises:
        UserError: If it identifies anything else.
    """
    match identifier:
        case ("storage", StorageType(dtype=dtype), str() as key, _, int() as size, *view) if size >= 0:
            require(view in ([], [None]), f"its storage {shorten(key)} is a part of another one\n{CONVERT}")
            return Storage(key, dtype, size)
    raise UserError(f"its pickle refers to something that is not a storage, which {ALLOWED}")


def _make_tensor(arguments: tuple[object, ...]) -> Tensor:
    storage, offset, shape, strides, *rest = arguments  # then requires_grad, hooks, and flags
    if not isinstance(storage, Storage):
        raise UserError("it has a tensor without a storage; download it again")
    if not isinstance(offset, int) or not _is_sizes((offset,)) or not _is_sizes(shape) or not _is_sizes(strides):
        raise UserError(
            f"it has a tensor with more than {AXES} axes, or with a size, stride or offset that is negative or no "
            "integer; download it again"
        )
    require(not rest[2:] or not rest[2], f"it has tensors that are negated or conjugated when used\n{CONVERT}")
    tensor = Tensor(storage, offset, tuple(shape), tuple(strides))
    _check_extent(tensor)
    return tensor


def _is_sizes(value: object) -> TypeGuard[Sequence[int]]:
    if not isinstance(value, tuple | list) or len(value) > AXES:
        return False
    return all(isinstance(size, int) and 0 <= size < 2**63 for size in value)


def _check_extent(tensor: Tensor) -> None:
    """Raise UserError if a tensor leaves its storage, or repeats the elements of it."""
    size, count = tensor.storage.size, math.prod(tensor.shape)
    require(len(tensor.shape) == len(tensor.strides), "it has a tensor with more or fewer strides than axes")
    last = tensor.offset + sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.strides, strict=True))
    require(
        count == 0 or (count <= size and last < size),
        f"it has a tensor of shape {list(tensor.shape)} that needs more than the {size} elements of its storage\n"
        "if it was expanded, save it with .contiguous(); otherwise download it again",
    )


def _refuse_typed_tensor(arguments: tuple[object, ...]) -> Tensor:
    dtype = arguments[6]
    name = dtype.name if isinstance(dtype, Constant) else "an unknown type"
    raise UserError(f"it has tensors of {name}, which are not supported\n{CONVERT}")


def _get_tensor(arguments: tuple[object, ...]) -> object:
    return arguments[0]


def _make_ordered_dict(arguments: tuple[object, ...]) -> OrderedDict[object, object]:
    pairs = arguments[0] if arguments else []
    if not isinstance(pairs, list):
        raise UserError(f"an OrderedDict made of {type(pairs).__name__} {ALLOWED}")
    result = OrderedDict()
    for pair in pairs:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise UserError(f"an OrderedDict made of other things than pairs {ALLOWED}")
        set_item(result, *pair)
    pairs[:] = [None]  # which a second use finds: using a list again and again would take the square of its size
    return result


def _make_size(arguments: tuple[object, ...]) -> object:
    return arguments[0] if arguments else ()


def _make_device(arguments: tuple[object, ...]) -> Constant:
    return Constant("device")


STORAGES = {
    "Float": np.float32,
    "Double": np.float64,
    "Half": np.float16,
    "BFloat16": ml_dtypes.bfloat16,
    "Long": np.int64,
    "Int": np.int32,
    "Short": np.int16,
    "Char": np.int8,
    "Byte": np.uint8,
    "Bool": np.bool_,
    "Untyped": np.uint8,
}
GLOBALS: dict[str, object] = {
    **{f"torch.{name}Storage": StorageType(np.dtype(dtype)) for name, dtype in STORAGES.items()},
    "torch.storage.UntypedStorage": StorageType(np.dtype(np.uint8)),
    "torch._utils._rebuild_tensor": Function(_make_tensor),
    "torch._utils._rebuild_tensor_v2": Function(_make_tensor),
    "torch._utils._rebuild_tensor_v3": Function(_refuse_typed_tensor),
    "torch._utils._rebuild_parameter": Function(_get_tensor),
    "torch.Size": Function(_make_size),
    "torch.device": Function(_make_device),
    "collections.OrderedDict": Function(_make_ordered_dict),
}
