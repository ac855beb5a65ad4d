"""The computation graph of a model, for TensorBoard."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial

import flax.linen as nn
import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal, Var

from jaxclf.models.calling import get_mode, infer_shapes
from jaxclf.xla.interpreter import CHECKPOINTS, INLINED, close_jaxpr, get_body

ENTERED = (*INLINED, *CHECKPOINTS, "custom_jvp_call", "custom_vjp_call")


@dataclass(frozen=True)
class Node:
    """An operation, a parameter or the input of a graph."""

    name: str
    """Unique path of the enclosing modules and the operation, such as "Cnn/conv1/add"."""
    operation: str
    inputs: tuple[str, ...]
    """Names of the nodes whose outputs are its inputs."""
    shape: tuple[int, ...]
    """Shape of its first output for one image."""


def trace_graph(model: nn.Module, image_shape: tuple[int, int, int]) -> tuple[Node, ...]:
    """Trace the computation graph of a model, without computing anything.

    Args:
        model: A Linen module.
        image_shape: Height, width and channels of an image.

    Returns:
        The nodes: parameters, the input, the operations in the order in which they run, and the output.
    """
    images = jax.ShapeDtypeStruct((1, *image_shape), np.uint8)
    _, variables = infer_shapes(model, images)
    program = jax.make_jaxpr(partial(model.apply, **get_mode(model, False)))(variables, images)
    tracing = _Tracing()
    inputs = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        _, *modules = (entry.key for entry in path)  # the first is the collection
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
        """Add a node; return its name, which gets a number if it is taken."""
        self._taken[name] += 1
        if self._taken[name] > 1:
            name = f"{name}_{self._taken[name]}"
        self.nodes.append(Node(name, operation, inputs, tuple(shape)))
        return name

    def walk(self, program: ClosedJaxpr, inputs: list[str], scope: tuple[str, ...]) -> list[str]:
        """Add the nodes of a closed jaxpr in a scope; return the names of the nodes of its outputs."""
        made = dict(zip(program.jaxpr.invars, inputs, strict=True))
        for eqn in program.jaxpr.eqns:
            names = [name for atom in eqn.invars if (name := _find_node(made, atom))]
            within = _extend_scope(scope, str(eqn.source_info.name_stack))
            if eqn.primitive.name in ENTERED:
                outputs = self.walk(close_jaxpr(get_body(eqn)), [_find_node(made, atom) for atom in eqn.invars], within)
            else:
                operation = eqn.primitive.name
                name = self.add("/".join([*within, operation]), operation, tuple(names), eqn.outvars[0].aval.shape)
                outputs = [name] * len(eqn.outvars)
            made |= zip(eqn.outvars, outputs, strict=True)
        return [_find_node(made, atom) for atom in program.jaxpr.outvars]


def _extend_scope(scope: tuple[str, ...], name_stack: str) -> tuple[str, ...]:
    """Return a scope extended by the modules of a name stack, in which Flax names methods `module.method`."""
    for name in filter(None, name_stack.split("/")):
        module = name.partition(".")[0]
        scope = scope if scope and scope[-1] == module else (*scope, module)
    return scope


def _find_node(made: dict[Var, str], atom: Var | Literal) -> str:
    """Return the name of the node that computes a value, or an empty string for a constant."""
    return "" if isinstance(atom, Literal) else made.get(atom, "")
