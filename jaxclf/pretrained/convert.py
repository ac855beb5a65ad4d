"""Conversion of tensors by name to the variables of a model: every tensor is used, and every variable filled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxclf.errors import UserError, require
from jaxclf.models import ConvNext, EfficientNetLite, ResNet, Vit
from jaxclf.models.calling import initialize_model
from jaxclf.pretrained.adapt import adapt_array
from jaxclf.pretrained.maps.convnext import map_timm_convnext, map_torchvision_convnext
from jaxclf.pretrained.maps.efficientnet import map_efficientnet_lite_pytorch, map_timm_efficientnet_lite
from jaxclf.pretrained.maps.resnet import map_torchvision_resnet
from jaxclf.pretrained.maps.vit import map_timm_vit
from jaxclf.pretrained.tables import Row, Table
from jaxclf.types import Variables

Head = Literal["keep", "new"]
MAPS: Mapping[type[nn.Module], Mapping[str, Any]] = {
    ResNet: {"torchvision": map_torchvision_resnet},
    Vit: {"timm": map_timm_vit},
    ConvNext: {"timm": map_timm_convnext, "torchvision": map_torchvision_convnext},
    EfficientNetLite: {
        "efficientnet_lite_pytorch": map_efficientnet_lite_pytorch,
        "timm": map_timm_efficientnet_lite,
    },
}
"""For each architecture, the function that makes the table for each library."""
IGNORED = ".num_batches_tracked"  # the count of batches of PyTorch, which has no counterpart
HEAD = "params/logits/"
LISTED = 8  # names in a message


@dataclass(frozen=True)
class Conversion:
    """Variables of a model, and where they come from."""

    variables: Variables
    layout: str
    """Library whose names and layouts the tensors have: "timm", "torchvision", …, or "jaxclf"."""
    used: tuple[str, ...]
    """Names of the tensors that were used."""
    ignored: tuple[str, ...]
    """Names of the tensors that were left out because they have no counterpart."""
    adapted: tuple[str, ...]
    """A line for each variable that has another shape than its tensor."""


def convert_weights(
    model: nn.Module,
    image_shape: tuple[int, int, int],
    arrays: Mapping[str, np.ndarray],
    head: Head = "keep",
    seed: int = 0,
) -> Conversion:
    """Convert tensors to the variables of a model.

    Args:
        model: The model. For the architectures of `MAPS` the tensors may have the names and layouts of other libraries;
            for every model those of jaxclf's exports, such as "params/conv1/kernel".
        image_shape: Height, width and channels of its images. Positions of a `Vit` are resized to its `image_size`, and
            the first kernel is adapted to another number of channels, as timm does it.
        arrays: The tensors by name.
        head: "keep", or "new": the last layer is initialized, for other classes.
        seed: Seed of the new last layer.

    Returns:
        The variables as NumPy arrays, and what was used.

    Raises:
        UserError: If a tensor is left over, a variable has no tensor, or shapes or types do not fit.
    """

    def initialize() -> Variables:
        return initialize_model(model, jax.random.key(seed), jnp.zeros((1, *image_shape), np.uint8))[1]

    targets = flatten_dict(jax.eval_shape(initialize), sep="/")
    layout, table = _choose_table(model, targets, arrays)
    new = {path for path in targets if head == "new" and path.startswith(HEAD)}
    require(head == "keep" or bool(new), f'{type(model).__name__} has no last layer "logits" to replace')
    replaced = {row.source for path, row in table.items() if path in new}
    ignored = {name for name in arrays if name.endswith(IGNORED)} | (replaced & arrays.keys())
    rows = {path: row for path, row in table.items() if path not in new}
    _check_names(type(model).__name__, layout, rows, arrays, ignored)
    flat, adapted = {}, []
    for path, row in rows.items():
        array = _convert_array(path, row, arrays[row.source], targets[path])
        flat[path], remark = adapt_array(path, array, targets[path], model)
        adapted += [remark] if remark else []
    if new:
        # Compiled, so that XLA leaves out what only the other variables need.
        initial = jax.jit(lambda: {path: x for path, x in flatten_dict(initialize(), sep="/").items() if path in new})
        flat |= jax.device_get(initial())
    used = tuple(sorted({row.source for row in rows.values()}))
    return Conversion(unflatten_dict(flat, sep="/"), layout, used, tuple(sorted(ignored)), tuple(adapted))


def _convert_array(path: str, row: Row, array: np.ndarray, target: Any) -> np.ndarray:
    """Return what a tensor is converted to; raise UserError if its shape does not allow it."""
    try:
        return row.convert(array)
    except (ValueError, IndexError) as error:  # NumPy's, for the number or the length of axes
        raise UserError(
            f"{path}: the tensor {row.source} has shape {list(array.shape)}, expected one that becomes "
            f"{list(target.shape)}; name the network that the weights belong to"
        ) from error


def _choose_table(model: nn.Module, targets: Mapping[str, Any], arrays: Mapping[str, Any]) -> tuple[str, Table]:
    """Return the library whose names the tensors have, and its table: the one with the most names in common."""
    tables = {name: make(model) for name, make in MAPS.get(type(model), {}).items()}
    tables["jaxclf"] = {path: Row(path, np.asarray, np.asarray) for path in targets}
    # A library may not have what the fields of a model choose, such as fixed positions.
    tables = {name: table for name, table in tables.items() if table.keys() == targets.keys()}
    return max(tables.items(), key=lambda item: len({row.source for row in item[1].values()} & arrays.keys()))


def _check_names(model: str, layout: str, rows: Table, arrays: Mapping[str, Any], ignored: set[str]) -> None:
    """Raise UserError with the variables that have no tensor and the tensors that are left over."""
    missing = sorted(f"{path}: no tensor {row.source}" for path, row in rows.items() if row.source not in arrays)
    left = sorted(arrays.keys() - {row.source for row in rows.values()} - ignored)
    if missing or left:
        items = [*missing[:LISTED], *([f"… {len(missing) - LISTED:,} more variables"] if len(missing) > LISTED else [])]
        items += [f"{name}: used by no variable" for name in left[:LISTED]]
        items += [f"… {len(left) - LISTED:,} more tensors"] if len(left) > LISTED else []
        raise UserError(
            f"the weights are not those of this {model}: {len(missing):,} of {len(rows):,} variables have no tensor, "
            f"and {len(left):,} of {len(arrays):,} tensors are left over, by the names of {layout}:",
            items,
        )
