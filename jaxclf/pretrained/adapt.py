"""Adaptation of pretrained arrays to another image size or number of channels, and checks of shapes and types."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from jaxclf.errors import UserError
from jaxclf.models import Vit
from jaxclf.models.positions import resize_positions

INPUT_KERNELS = ("params/stem/conv/kernel", "params/patch_embedding/kernel")
POSITIONS = "params/positions"


def adapt_array(path: str, array: np.ndarray, target: Any, model: nn.Module) -> tuple[np.ndarray, str]:
    """Return an array with the shape and type of a variable.

    Args:
        path: The path of the variable.
        array: What its tensor was converted to.
        target: The shape and type of the variable.
        model: The model.

    Returns:
        The array, and a line that says how it was adapted; empty if it has the shape already.

    Raises:
        UserError: If it cannot have that shape or type.
    """
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise UserError(
            f"{path}: the tensor is {array.dtype}, expected floats; convert quantized weights to {target.dtype} first"
        )
    found, remark = array.shape, ""
    if array.shape != target.shape and path in INPUT_KERNELS:
        array = adapt_channels(array, target.shape[2])
        remark = f"{path}: {found[2]} to {target.shape[2]} input channels"
    elif array.shape != target.shape and path == POSITIONS and isinstance(model, Vit):
        array = _resize_positions(array, target.shape[0], model)
        remark = f"{path}: {found[0]} to {target.shape[0]} positions"
    if array.shape != target.shape:
        raise UserError(f"{path}: the tensor has shape {list(found)}, expected {list(target.shape)}")
    return np.ascontiguousarray(array, target.dtype), remark


def adapt_channels(kernel: np.ndarray, channels: int) -> np.ndarray:
    """Return the first kernel [h, w, 3, o] of a network for another number of channels.

    One channel gets the sum of the weights of the three. Otherwise they are repeated and scaled, so that the response
    to an image with equal channels stays about the same. timm does the same.
    """
    if channels == 1:
        return kernel.sum(axis=2, keepdims=True)
    given = kernel.shape[2]
    repeated = np.concatenate([kernel] * -(-channels // given), axis=2)[:, :, :channels]
    return repeated * (given / channels)


def _resize_positions(positions: np.ndarray, count: int, model: Vit) -> np.ndarray:
    """Return positions [n, c], first that of the class token, for the `image_size` of a model instead of a square."""
    others = int(model.pool == "class_token")
    side = round((len(positions) - others) ** 0.5)
    grid = (model.image_size[0] // model.patch, model.image_size[1] // model.patch)
    if side * side + others != len(positions) or grid[0] * grid[1] + others != count:
        return positions
    patches = np.float32(positions[others:]).reshape(side, side, -1)
    resized = np.asarray(resize_positions(patches, grid)).reshape(-1, positions.shape[1])
    return np.concatenate([np.float32(positions[:others]), resized])
