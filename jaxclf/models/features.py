"""Pooled features: outputs of a layer of a network, one vector for each image."""

from __future__ import annotations

from typing import Any, cast

import flax.linen as nn
from flax.traverse_util import flatten_dict
from jaxtyping import Float

from jaxclf.errors import require
from jaxclf.models.calling import get_mode
from jaxclf.models.taps import apply_with_taps, trace_outputs
from jaxclf.types import Array, Variables, promote_float

INPUTS, NAME = "tapped_inputs", "(input)"


def compute_features(
    model: nn.Module, variables: Variables, images: Array, layer: str | None = None
) -> Float[Array, "b c"]:
    """Compute one vector for each image, in inference mode.

    Args:
        model: A Linen module.
        variables: Its variables.
        images: Images [b, h, w, c].
        layer: The path of a layer, such as "stage3_block1", whose output [b, ..., c] is averaged over positions; None:
            the input of the last dense layer, which is what the model classifies.

    Returns:
        Features [b, c], float32 at least.

    Raises:
        UserError: If the model has no such layer, or its output is not of that shape.
    """
    if layer is None:
        return promote_float(_get_head_input(model, variables, images))
    outputs = trace_outputs(model, variables, images)
    suitable = [path for path, calls in outputs.items() if len(calls) == 1 and len(calls[0].shape) > 1]
    require(layer in suitable, f"no layer {layer!r} with one output [b, ..., c]: choose one of {', '.join(suitable)}")
    _, tapped = apply_with_taps(model, variables, images, lambda module: "/".join(module.path) == layer)
    features = promote_float(tapped[layer][0])
    return features.mean(tuple(range(1, features.ndim - 1)))


def _get_head_input(model: nn.Module, variables: Variables, images: Array) -> Float[Array, "b c"]:
    """Return the input of the dense layer that is called last."""
    paths: list[tuple[str, ...]] = []

    def intercept(method, args, kwargs, context):
        module = context.module
        if isinstance(module, nn.Dense) and module.path and module.sow(INPUTS, NAME, args[0]):
            paths.append(module.path)
        return method(*args, **kwargs)

    with nn.intercept_methods(intercept):
        _, state = model.apply(variables, images, **get_mode(model, False), mutable=[INPUTS])
    require(len(paths) > 0, "the model has no dense layer: name the layer whose output is wanted")
    return cast(dict[tuple[str, ...], Any], flatten_dict(state[INPUTS]))[*paths[-1], NAME][-1]
