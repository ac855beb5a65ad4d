"""The operations of a network and what flows between them, each under the names of the modules it is in."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.extend.core import Literal

from jaxclf.xla.interpreter import INLINED, body_of, closed

ENTERED = (*INLINED, "custom_jvp_call", "custom_vjp_call")


@dataclass(frozen=True)
class Node:
    """One operation, parameter or input."""

    name: str
    """Names of modules from the outside in and then of the operation, joined with slashes; no other node's."""
    operation: str
    inputs: tuple[str, ...]
    """Names of the nodes whose outputs it takes."""
    shape: tuple[int, ...]
    """Of its first output, for one image."""


def graph(model: nn.Module, image_shape: tuple[int, int, int]) -> tuple[Node, ...]:
    """The nodes of a model in the order they run, parameters and the input first. Nothing is computed."""
    images = jax.ShapeDtypeStruct((1, *image_shape), np.uint8)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    program = jax.make_jaxpr(lambda variables, images: model.apply(variables, images))(variables, images)
    tracing = _Tracing()
    inputs = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        _, *modules = (entry.key for entry in path)  # the collection is no module
        inputs.append(tracing.add("/".join([type(model).__name__, *modules]), "parameter", (), leaf.shape))
    inputs.append(tracing.add("images", "input", (), images.shape))
    outputs = tracing.walk(program, inputs, ())
    tracing.add("output", "output", tuple(outputs), program.out_avals[0].shape)
    return tuple(tracing.nodes)


class _Tracing:
    def __init__(self):
        self.nodes: list[Node] = []
        self._taken = Counter[str]()

    def add(self, name: str, operation: str, inputs: tuple[str, ...], shape: tuple[int, ...]) -> str:
        """A node; gives its name, numbered where others have it already."""
        self._taken[name] += 1
        if self._taken[name] > 1:
            name = f"{name}_{self._taken[name]}"
        self.nodes.append(Node(name, operation, inputs, tuple(shape)))
        return name

    def walk(self, program: Any, inputs: list[str], scope: tuple[str, ...]) -> list[str]:
        """The nodes of a closed jaxpr within a scope; gives the names of those that make its outputs."""
        made = dict(zip(program.jaxpr.invars, inputs, strict=True))
        for eqn in program.jaxpr.eqns:
            names = [name for atom in eqn.invars if (name := named(made, atom))]
            within = modules(scope, str(eqn.source_info.name_stack))
            if eqn.primitive.name in ENTERED:
                outputs = self.walk(closed(body_of(eqn)), [named(made, atom) for atom in eqn.invars], within)
            else:
                operation = eqn.primitive.name
                name = self.add("/".join([*within, operation]), operation, tuple(names), eqn.outvars[0].aval.shape)
                outputs = [name] * len(eqn.outvars)
            made |= zip(eqn.outvars, outputs, strict=True)
        return [named(made, atom) for atom in program.jaxpr.outvars]


def modules(scope: tuple[str, ...], names: str) -> tuple[str, ...]:
    """A scope and the modules in it; a method of a module, which Flax names `module.method`, is none of its own."""
    for name in filter(None, names.split("/")):
        module = name.partition(".")[0]
        scope = scope if scope and scope[-1] == module else (*scope, module)
    return scope


def named(made: dict[Any, str], atom: Any) -> str:
    """The node that makes a value; empty for a constant."""
    return "" if isinstance(atom, Literal) else made.get(atom, "")
