"""The inverse of `convert_weights`: from the variables of a model to tensors by the names of another library."""

from __future__ import annotations

from collections.abc import Mapping

import flax.linen as nn
import numpy as np

from jaxclf.errors import UserError, require
from jaxclf.models import ConvNext
from jaxclf.pretrained.convert import IGNORED, LISTED, MAPS
from jaxclf.pretrained.maps.convnext import is_large


def choose_layout(model: nn.Module, layout: str | None = None) -> str:
    """Return the library whose names and layouts the tensors of a model get.

    Args:
        model: The model.
        layout: The library that its weights come from; None if it is not known.

    Returns:
        That library, if it has the architecture. Otherwise "torchvision" for `ResNet` and for a `ConvNext` of the width
        of T or more, and "timm" for the others.

    Raises:
        UserError: If no library has the architecture.
    """
    require(
        type(model) in MAPS,
        f"{type(model).__name__} has no counterpart in a library of PyTorch; expected one of "
        f"{', '.join(family.__name__ for family in MAPS)}. Other networks are exported with --format jaxclf",
    )
    layouts = MAPS[type(model)]
    if layout in layouts:
        return str(layout)
    return "torchvision" if "timm" not in layouts or (isinstance(model, ConvNext) and is_large(model)) else "timm"


def revert_weights(model: nn.Module, variables: Mapping[str, np.ndarray], layout: str) -> dict[str, np.ndarray]:
    """Convert the variables of a model to the tensors of a library, so that its module loads them.

    Args:
        model: The model.
        variables: Its variables by path, such as "params/stem/conv/kernel".
        layout: The library, from `choose_layout`.

    Returns:
        The tensors by name. Each batch normalization has a count of batches too, which is 0.

    Raises:
        UserError: If the library has no counterpart of the model because of its fields.
    """
    table = MAPS[type(model)][layout](model)
    if different := sorted(table.keys() ^ variables.keys()):
        raise UserError(
            f"{layout} has no {type(model).__name__} with these fields (variables that differ: {len(different):,}); "
            "export it with --format jaxclf",
            [f"{path}: only in {layout if path in table else 'this model'}" for path in different[:LISTED]],
        )
    parts: dict[str, list[np.ndarray]] = {}
    for path, row in table.items():
        parts.setdefault(row.source, []).append(row.revert(variables[path]))
    tensors = {name: np.concatenate(group) for name, group in parts.items()}
    counts = [name.replace(".running_mean", IGNORED) for name in tensors if name.endswith(".running_mean")]
    return tensors | {name: np.zeros((), np.int64) for name in counts}
