"""Tables that say which tensor of a source each variable of a model comes from.

A table has a row for each variable by its path, such as "params/block1/norm1/scale".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

import numpy as np

Convert = Callable[[np.ndarray], np.ndarray]


class Row(NamedTuple):
    """Where a variable comes from."""

    source: str
    """Name of the tensor."""
    convert: Convert
    """Returns the variable, in our layout."""


Table: TypeAlias = Mapping[str, Row]


def map_array(path: str, source: str, shape: tuple[int, ...] | None = None) -> dict[str, Row]:
    """Return the row of a parameter that keeps its layout, or has only another shape."""
    return {f"params/{path}": Row(source, lambda array: array if shape is None else array.reshape(shape))}


def map_conv(path: str, source: str, use_bias: bool = True) -> dict[str, Row]:
    """Return the rows of a convolution of PyTorch.

    The kernel (o, i, h, w) becomes (h, w, i, o). That of a depthwise convolution, (c, 1, h, w), becomes (h, w, 1, c).
    """
    rows = {f"params/{path}/kernel": Row(f"{source}.weight", lambda weight: weight.transpose(2, 3, 1, 0))}
    return rows | map_array(f"{path}/bias", f"{source}.bias") if use_bias else rows


def map_dense(path: str, source: str) -> dict[str, Row]:
    """Return the rows of a dense layer, which may be a 1 x 1 convolution in the source."""
    kernel = Row(f"{source}.weight", lambda weight: weight.reshape(weight.shape[:2]).T)
    return {f"params/{path}/kernel": kernel} | map_array(f"{path}/bias", f"{source}.bias")


def map_norm(path: str, source: str) -> dict[str, Row]:
    """Return the rows of the scale and bias of a normalization of PyTorch."""
    return map_array(f"{path}/scale", f"{source}.weight") | map_array(f"{path}/bias", f"{source}.bias")


def map_batch_norm(path: str, source: str) -> dict[str, Row]:
    """Return the rows of a batch normalization of PyTorch with its running statistics."""
    statistics = {f"batch_stats/{path}/{name}": Row(f"{source}.running_{name}", np.asarray) for name in ("mean", "var")}
    return map_norm(path, source) | statistics


def map_conv_norm(path: str, conv: str, norm: str, has_statistics: bool = True) -> dict[str, Row]:
    """Return the rows of a convolution without bias and a normalization."""
    map_second = map_batch_norm if has_statistics else map_norm
    return map_conv(f"{path}/conv", conv, use_bias=False) | map_second(f"{path}/norm", norm)
