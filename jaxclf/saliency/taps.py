"""Taps on the layers of an explained model: their outputs, and the logits as a function of changes of these."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxclf.errors import UserError, require, suggest_names
from jaxclf.models.taps import apply_with_taps, trace_outputs
from jaxclf.saliency.query import Query, check_logits
from jaxclf.types import Array, Logits

Taps = dict[str, Float[Array, "b ..."]]
"""Arrays by the path of a layer, such as "block/conv2"."""


@dataclass(frozen=True)
class Layer:
    """A module of a model that is called once."""

    path: str
    output: jax.ShapeDtypeStruct
    """Shape [b, h, w, c] and dtype of its output."""

    def make_zeros(self) -> Taps:
        """Return a perturbation of its output by zeros."""
        return {self.path: jnp.zeros(self.output.shape, self.output.dtype)}


def tap_layers(query: Query) -> Callable[[Array, Taps], tuple[Logits, Taps]]:
    """Return the model of a query as a function of images and perturbations.

    The perturbations are added to the outputs of their layers; the results are the logits and these outputs.
    """
    model = _require_module(query)

    def run(images: Array, perturbations: Taps) -> tuple[Logits, Taps]:
        logits, outputs = apply_with_taps(
            model, query.variables, images, lambda module: "/".join(module.path) in perturbations, perturbations
        )
        return check_logits(logits, images), {path: calls[0] for path, calls in outputs.items()}

    return query.rewrite(run)


def find_spatial_layer(query: Query, path: str | None) -> Layer:
    """Return the layer at a path, or by default the last layer with an output [b, h, w, c].

    Raises UserError if there is none, if it is called more than once, and for models without modules.
    """
    outputs = trace_outputs(_require_module(query), query.variables, query.images)
    suitable = [name for name, calls in outputs.items() if len(calls) == 1 and _is_spatial(calls[0], query)]
    choice = f"choose one of {', '.join(suitable)}" if suitable else "the model has no layer that is suitable"
    if path is None:
        path = next((name for name in reversed(outputs) if _is_spatial(outputs[name][-1], query)), None)
        if path is None:
            names = ", ".join(outputs)
            raise UserError(
                f"no layer has an output [b, h, w, c], as a class activation map needs; the layers are {names}"
            )
    require(path in outputs, f"no layer {path!r}{suggest_names(path, outputs, 3)}: {choice}")
    calls = outputs[path]
    require(len(calls) == 1, f"layer {path!r} is called {len(calls)} times: expected once; {choice}")
    shape = list(calls[0].shape)
    require(
        _is_spatial(calls[0], query), f"layer {path!r} has the output shape {shape}: expected [b, h, w, c]; {choice}"
    )
    return Layer(path, calls[0])


def _is_spatial(output: jax.ShapeDtypeStruct, query: Query) -> bool:
    return len(output.shape) == 4 and output.shape[0] == query.images.shape[0]


def _require_module(query: Query) -> nn.Module:
    if not isinstance(query.model, nn.Module):
        raise UserError(f"{type(query.model).__name__} is not a Linen module, so it has no layers; pass the module")
    return query.model
