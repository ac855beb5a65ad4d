"""Tables that say which tensor of a source each variable of a model comes from, and how one becomes the other.

A table has a row for each variable by its path, such as "params/block1/norm1/scale".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

import numpy as np

Convert = Callable[[np.ndarray], np.ndarray]
Shape = tuple[int, ...]


class Row(NamedTuple):
    """Where a variable comes from."""

    source: str
    """Name of the tensor."""
    convert: Convert
    """Returns the variable, in our layout, from the tensor."""
    revert: Convert
    """Returns the tensor, in the layout of the source, from the variable. Rows with the same source return parts of the
    tensor, which are joined along the first axis in the order of the rows."""


Table: TypeAlias = Mapping[str, Row]


def map_array(path: str, source: str, shape: Shape | None = None, source_shape: Shape | None = None) -> dict[str, Row]:
    """Return the row of a parameter that keeps its layout, or has only another shape.

    Args:
        path: Its path.
        source: Name of the tensor.
        shape: Shape of the parameter, with -1 for a side that follows from the others; None: that of the tensor.
        source_shape: Shape of the tensor in the same form; None: that of the parameter.
    """
    return {f"params/{path}": Row(source, _reshape_to(shape), _reshape_to(source_shape))}


def _reshape_to(shape: Shape | None) -> Convert:
    """Return a function that reshapes an array, or keeps it as it is."""
    return np.asarray if shape is None else lambda array: array.reshape(shape)


def map_conv(path: str, source: str, use_bias: bool = True) -> dict[str, Row]:
    """Return the rows of a convolution of PyTorch.

    The kernel (o, i, h, w) becomes (h, w, i, o). That of a depthwise convolution, (c, 1, h, w), becomes (h, w, 1, c).
    """
    kernel = Row(
        f"{source}.weight",
        lambda weight: weight.transpose(2, 3, 1, 0),
        lambda kernel: kernel.transpose(3, 2, 0, 1),
    )
    rows = {f"params/{path}/kernel": kernel}
    return rows | map_array(f"{path}/bias", f"{source}.bias") if use_bias else rows


def map_dense(path: str, source: str, is_convolution: bool = False) -> dict[str, Row]:
    """Return the rows of a dense layer.

    Args:
        path: Its path.
        source: Name of the layer in the source.
        is_convolution: Revert it to a 1 x 1 convolution. Both kinds of layers are converted.
    """
    kernel = Row(
        f"{source}.weight",
        lambda weight: weight.reshape(weight.shape[:2]).T,
        lambda kernel: kernel.T.reshape(*kernel.T.shape, 1, 1) if is_convolution else kernel.T,
    )
    return {f"params/{path}/kernel": kernel} | map_array(f"{path}/bias", f"{source}.bias")


def map_norm(path: str, source: str) -> dict[str, Row]:
    """Return the rows of the scale and bias of a normalization of PyTorch."""
    return map_array(f"{path}/scale", f"{source}.weight") | map_array(f"{path}/bias", f"{source}.bias")


def map_batch_norm(path: str, source: str) -> dict[str, Row]:
    """Return the rows of a batch normalization of PyTorch with its running statistics."""
    statistics = {
        f"batch_stats/{path}/{name}": Row(f"{source}.running_{name}", np.asarray, np.asarray)
        for name in ("mean", "var")
    }
    return map_norm(path, source) | statistics


def map_conv_norm(path: str, conv: str, norm: str, has_statistics: bool = True) -> dict[str, Row]:
    """Return the rows of a convolution without bias and a normalization."""
    map_second = map_batch_norm if has_statistics else map_norm
    return map_conv(f"{path}/conv", conv, use_bias=False) | map_second(f"{path}/norm", norm)
