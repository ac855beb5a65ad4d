"""What a model is made of: its layers in the order they run, their output shapes and parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from rich.table import Table


@dataclass(frozen=True)
class Layer:
    """One named module of a model."""

    path: str  # names from the outside in, joined with slashes
    kind: str  # class name
    output_shape: tuple[int, ...]  # without the batch
    parameters: int  # its own, not those of modules inside it


@dataclass(frozen=True)
class Summary:
    """The layers of a model and what they add up to."""

    layers: tuple[Layer, ...]
    trainable: int
    other: int  # statistics and the like, which gradients do not change
    forward_flops: float  # floating-point operations for one image

    @property
    def parameters(self) -> int:
        """All numbers the model holds."""
        return self.trainable + self.other

    def markdown(self) -> str:
        """The summary as a table in Markdown."""
        lines = ["| layer | type | output shape | parameters |", "|---|---|---|---|"]
        for layer in self.layers:
            lines.append(f"| {layer.path} | {layer.kind} | {list(layer.output_shape)} | {layer.parameters:,} |")
        return "\n".join([*lines, f"| all | | | {self.parameters:,} |"])

    def table(self) -> Table:
        """The summary for a terminal."""
        table = Table("layer", "type", "output shape", title_justify="left")
        table.add_column("parameters", justify="right")
        for layer in self.layers:
            shape = ", ".join(["b", *map(str, layer.output_shape)])
            table.add_row(layer.path, layer.kind, f"\\[{shape}]", f"{layer.parameters:,}")
        table.add_section()
        for name, count in (("total", self.parameters), ("trainable", self.trainable), ("other", self.other)):
            table.add_row(f"{name} parameters", "", "", f"{count:,}")
        return table


def summarize(model: nn.Module, image_shape: Sequence[int], dtype: Any = jnp.uint8) -> Summary:
    """The summary of a model for images of a shape, [h, w, c] or [h·w·c]. Nothing is computed but shapes."""
    images = jax.ShapeDtypeStruct((1, *image_shape), dtype)
    calls: list[tuple[tuple[str, ...], str, tuple[int, ...]]] = []

    def note(method, args, kwargs, context):
        output = method(*args, **kwargs)
        if context.method_name == "__call__" and context.module.path and hasattr(output, "shape"):
            calls.append((context.module.path, type(context.module).__name__, output.shape[1:]))
        return output

    with nn.intercept_methods(note):
        variables = jax.eval_shape(model.init, jax.random.key(0), images)
    trainable, other = count(variables["params"]), count(variables) - count(variables["params"])
    layers = tuple(
        Layer("/".join(path), kind, shape, sum(own_parameters(tree, path) for tree in variables.values()))
        for path, kind, shape in dict.fromkeys(calls)
    )
    lowered = jax.jit(model.apply).lower(variables, images)
    flops = (lowered.cost_analysis() or {}).get("flops", float("nan"))
    return Summary(layers, trainable, other, flops)


def count(tree: Any) -> int:
    """How many numbers a tree of arrays holds."""
    return sum(prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def own_parameters(tree: Any, path: tuple[str, ...]) -> int:
    """How many numbers the module at `path` holds itself."""
    for name in path:
        tree = tree.get(name, {})
    return count([leaf for leaf in tree.values() if not isinstance(leaf, dict)])
