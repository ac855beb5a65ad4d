"""Layers of a Linen module, by path: what they put out, and the logits as a function of that.

Outputs leave the model, and changes of them enter it, through variable collections, so that layers under `nn.remat`
and `nn.jit` are found like any others. Those inside `nn.scan` and `nn.vmap` are not: they have no single output.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxclf.errors import UserError, require
from jaxclf.saliency.query import Query, checked
from jaxclf.types import Array, Logits

OUTPUTS, CHANGES = "layer_outputs", "layer_changes"
"""The variable collections."""
NAME = "(output)"
"""What a module's output is called in them: no module can have this name."""


@dataclass(frozen=True)
class Layer:
    """A module of a model that is called once."""

    path: tuple[str, ...]
    """Names of modules from the outside in."""
    output: jax.ShapeDtypeStruct
    """Shape [b, h, w, c] and type of what it puts out."""

    def unchanged(self) -> Float[Array, "b h w c"]:
        """The change of its output that changes nothing."""
        return jnp.zeros(self.output.shape, self.output.dtype)


def spatial_layer(query: Query, path: str | None) -> Layer:
    """The layer at a path such as "block/conv2", or the last one to put out [b, h, w, c].

    Raises UserError where there is none, where it is called more than once, and for a model without modules.
    """
    outputs = layer_outputs(query)
    names = ", ".join(reversed(outputs))
    if path is None:
        path = next((name for name, calls in outputs.items() if _is_spatial(calls[-1], query)), None)
        if path is None:
            raise UserError(f"no layer puts out [b, h, w, c], as a class-activation map needs; the layers are {names}")
    require(path in outputs, f"no layer {path!r}: the layers are {names}")
    calls = outputs[path]
    require(len(calls) == 1, f"layer {path!r} is called {len(calls)} times: expected once; choose one of {names}")
    shape = list(calls[0].shape)
    require(_is_spatial(calls[0], query), f"layer {path!r} puts out {shape}: expected [b, h, w, c]")
    return Layer(tuple(path.split("/")), calls[0])


def _is_spatial(output: jax.ShapeDtypeStruct, query: Query) -> bool:
    return len(output.shape) == 4 and output.shape[0] == query.images.shape[0]


def layer_outputs(query: Query) -> dict[str, tuple[jax.ShapeDtypeStruct, ...]]:
    """Shapes and types of what each layer puts out, call by call; the layer that ends last comes first."""
    model = query.model
    if not isinstance(model, nn.Module):
        raise UserError(f"{type(model).__name__} is no Linen module, so it has no layers to find; give the module")
    order: list[tuple[str, ...]] = []

    def note(module: nn.Module, output: Any) -> Any:
        if module.path and isinstance(output, jax.Array) and module.sow(OUTPUTS, NAME, output):
            order.append(module.path)
        return output

    _, outputs = traced(lambda images: _apply(model, query.variables, images, note), query.images)
    return {"/".join(path): _at(outputs, path) for path in reversed(order)}


def traced(function: Callable[[Any], Any], images: Any) -> Any:
    """Shapes and types of what a function of images gives; every module of its model is run.

    Under `nn.jit` a second module like another one is not, and who listens would not hear of it: so, without jit.
    """
    with jax.disable_jit():
        return jax.eval_shape(function, images)


def with_layer(query: Query, layer: Layer) -> Callable[[Any, Any], tuple[Logits, Float[Array, "b h w c"]]]:
    """The model as a function of images and of a change of the layer's output: logits, and that output."""

    def note(module: nn.Module, output: Any) -> Any:
        if module.path == layer.path:
            output = output + module.get_variable(CHANGES, NAME)
            module.sow(OUTPUTS, NAME, output)
        return output

    def run(images, change):
        changes: Any = {NAME: change}
        for name in reversed(layer.path):
            changes = {name: changes}
        logits, outputs = _apply(query.model, {**query.variables, CHANGES: changes}, images, note)
        return checked(logits, images), _at(outputs, layer.path)[0]

    return query.rewrite(run)


def _apply(model: nn.Module, variables: Any, images: Any, note: Callable[[nn.Module, Any], Any]) -> tuple[Any, Any]:
    """Logits, and what `note`, which stands between each module and its output, leaves in the collection."""

    def intercept(call, arguments, options, context):
        output = call(*arguments, **options)
        return note(context.module, output) if context.method_name == "__call__" else output

    with nn.intercept_methods(intercept):
        logits, state = model.apply(variables, images, train=False, mutable=[OUTPUTS])
    return logits, state.get(OUTPUTS, {})


def _at(outputs: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        outputs = outputs[name]
    return outputs[NAME]
