"""Taps on the layers of an explained model: their outputs, and the logits as a function of changes of these."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxclf.errors import UserError, require, suggest_names
from jaxclf.models.taps import apply_with_taps, trace_outputs
from jaxclf.saliency.calls import Call, trace_calls
from jaxclf.saliency.query import Model, Query, check_logits
from jaxclf.saliency.tokens import Grid, find_grid, list_grids
from jaxclf.types import Array, Logits

Taps = dict[str, Float[Array, "b ..."]]
"""Arrays by the path of a layer, such as "block/conv2"."""


@dataclass(frozen=True)
class Layer:
    """A module of a model that is called once."""

    path: str
    output: jax.ShapeDtypeStruct
    """Shape [b, h, w, c] or [b, n, c] and dtype of its output."""
    grid: Grid | None = None
    """The places of tokens [b, n, c] in the image; None for an output [b, h, w, c]."""

    def make_zeros(self) -> Taps:
        """Return a perturbation of its output by zeros."""
        return {self.path: jnp.zeros(self.output.shape, self.output.dtype)}

    def to_map(self, values: Float[Array, ...]) -> Float[Array, "*batch h w c"]:
        """Return an array shaped like its output, possibly with more leading axes, with height and width."""
        return self.grid.to_map(values) if self.grid else values


def tap_layers(query: Query) -> Callable[[Array, Taps], tuple[Logits, Taps]]:
    """Return the model of a query as a function of images and perturbations.

    The perturbations are added to the outputs of their layers; the results are the logits and these outputs.
    """
    model = require_module(query.model)

    def run(images: Array, perturbations: Taps) -> tuple[Logits, Taps]:
        logits, outputs = apply_with_taps(
            model, query.variables, images, lambda module: "/".join(module.path) in perturbations, perturbations
        )
        return check_logits(logits, images), {path: calls[0] for path, calls in outputs.items()}

    return query.rewrite(run)


def find_spatial_layer(query: Query, path: str | None) -> Layer:
    """Return the layer at a path, with an output [b, h, w, c] or tokens [b, n, c] that are a grid over the image.

    The default is the last layer with an output [b, h, w, c], or where attention follows it the last layer with tokens
    before the last attention, such as the layer normalization of a vision transformer's last block.

    Raises UserError if there is none, if it is called more than once, if the tokens can be several grids, and for
    models without modules.
    """
    model = require_module(query.model)
    outputs = trace_outputs(model, query.variables, query.images)
    known = [calls[0].shape[1:3] for calls in outputs.values() if _is_spatial(calls[0].shape, query)]

    def has_places(shape: tuple[int, ...]) -> bool:
        return _is_spatial(shape, query) or _is_sequence(shape, query, known)

    suitable = [name for name, calls in outputs.items() if len(calls) == 1 and has_places(calls[0].shape)]
    choice = f"choose one of {', '.join(suitable)}" if suitable else "the model has no layer that is suitable"
    if path is None:
        path = _choose_layer(query, model, outputs, known)
        if path is None:
            names = ", ".join(outputs)
            raise UserError(
                "no layer has an output [b, h, w, c], or tokens [b, n, c] of a grid over the image, as a class "
                f"activation map needs; the layers are {names}"
            )
    output = get_only_output(path, outputs, choice)
    shape = output.shape
    require(
        has_places(shape),
        f"layer {path!r} has the output shape {list(shape)}: expected [b, h, w, c], or tokens [b, n, c] of a grid over "
        f"the image; {choice}",
    )
    return Layer(path, output, None if len(shape) == 4 else find_grid(shape[1], query.images.shape, known))


def find_layer(query: Query, path: str | None) -> Layer:
    """Return the layer at a path, with an output [b, ...] of any shape, or the default of `find_spatial_layer`.

    Raises UserError if there is none, if it is called more than once, and for models without modules.
    """
    if path is None:
        return find_spatial_layer(query, None)
    outputs = trace_outputs(require_module(query.model), query.variables, query.images)
    suitable = [name for name, calls in outputs.items() if len(calls) == 1]
    return Layer(path, get_only_output(path, outputs, f"choose one of {', '.join(suitable)}"))


def get_only_output(path: str, outputs: Mapping[str, tuple[Any, ...]], choice: str) -> Any:
    """Return the output of the layer at a path; raise UserError if it is missing or called more than once.

    Args:
        path: The path of a layer.
        outputs: The outputs of all calls of each layer, arrays or their shapes.
        choice: The end of the error, with the layers to choose from.
    """
    require(path in outputs, f"no layer {path!r}{suggest_names(path, outputs, 3)}: {choice}")
    calls = outputs[path]
    require(len(calls) == 1, f"layer {path!r} is called {len(calls)} times: expected once; {choice}")
    return calls[0]


def _choose_layer(query: Query, model: nn.Module, outputs: Container[str], known: list[tuple[int, ...]]) -> str | None:
    """Return the default of `find_spatial_layer` among the layers with outputs, or None if there is none."""
    calls, total = trace_calls(model, query.variables, query.images)
    # Layers inside of the module of the last attention, such as its queries [b, n, heads, c], are no feature maps.
    owner = next((call.path + "/" for call in calls if call.start < total == call.stop), None)

    def has_places(call: Call) -> bool:
        # Layers in loops have no outputs that can be tapped.
        if call.path not in outputs or (owner and call.path.startswith(owner)):
            return False
        # After the last attention a class token has all that other tokens give to the logits: their gradients are 0.
        before = call.stop < total or not total
        return _is_spatial(call.outputs, query) or (before and _is_sequence(call.outputs, query, known))

    return next((call.path for call in reversed(calls) if has_places(call)), None)


def _is_spatial(shape: tuple[int, ...], query: Query) -> bool:
    return len(shape) == 4 and shape[0] == query.images.shape[0]


def _is_sequence(shape: tuple[int, ...], query: Query, known: list[tuple[int, ...]]) -> bool:
    b = query.images.shape[0]
    return len(shape) == 3 and shape[0] == b and bool(list_grids(shape[1], query.images.shape, known))


def require_module(model: Model) -> nn.Module:
    """Return a model; raise UserError if it is not a Linen module."""
    if not isinstance(model, nn.Module):
        raise UserError(f"{type(model).__name__} is not a Linen module, so its layers are unknown; pass the module")
    return model
