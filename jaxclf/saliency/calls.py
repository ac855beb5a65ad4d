"""The calls of the modules of a Linen model in the order of its program, and which of them contain attention."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
from jax.ad_checkpoint import checkpoint_name
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn
from jaxtyping import PyTree

from jaxclf.saliency.methods.primitives import get_output
from jaxclf.saliency.query import bind_variables
from jaxclf.types import Array
from jaxclf.xla.interpreter import close_jaxpr, find_subjaxprs

START, STOP = "start ", "stop "
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Call:
    """A call of a module that maps an array to an array."""

    path: str
    inputs: Shape
    """Shape of its first argument."""
    outputs: Shape
    start: int
    """Number of attentions in the model before the call."""
    stop: int
    """Number of attentions before its end: it contains attention i for start <= i < stop."""
    begin: int
    """Number of equations in the program before the call."""
    end: int
    """Number of equations in the program before its end."""


def trace_calls(model: nn.Module, variables: PyTree, images: Array) -> tuple[list[Call], int]:
    """Return the calls of the modules inside a model in the order in which they end, and the number of attentions.

    An attention is a softmax over the last axis of scores [b, heads, n, n] (or other leading axes), between all tokens.
    """

    def run(images: Array) -> Array:
        with nn.intercept_methods(_mark_call):
            return bind_variables(model, variables)(images)

    # A module that is equal to one before it would not be called under `nn.jit`.
    with jax.disable_jit():
        program = jax.make_jaxpr(run)(images)
    return list(_find_calls(program)), sum(_is_attention(eqn, body) for eqn, body in _walk(program))


def _mark_call(call: Any, arguments: tuple, options: dict[str, Any], context: Any) -> Any:
    """Call a method of a module between two marks in the program."""
    path = "/".join(context.module.path) if context.method_name == "__call__" else ""
    if not path or not arguments or not isinstance(arguments[0], jax.Array):
        return call(*arguments, **options)
    outputs = call(checkpoint_name(arguments[0], START + path), *arguments[1:], **options)
    return checkpoint_name(outputs, STOP + path) if isinstance(outputs, jax.Array) else outputs


def _find_calls(program: ClosedJaxpr) -> Iterator[Call]:
    attentions, equations, started = 0, 0, []
    for eqn, body in _walk(program):
        mark, shape = str(eqn.params.get("name", "")), get_output(eqn).shape
        if mark.startswith(START):
            started.append((mark.removeprefix(START), shape, attentions, equations))
        elif mark.startswith(STOP):
            path, inputs, start, begin = started.pop()
            while path != mark.removeprefix(STOP):  # calls whose output is no array have no end
                path, inputs, start, begin = started.pop()
            yield Call(path, inputs, shape, start, attentions, begin, equations)
        else:
            attentions += _is_attention(eqn, body)
            equations += not any(find_subjaxprs(eqn))


def _walk(program: Jaxpr | ClosedJaxpr) -> Iterator[tuple[JaxprEqn, Jaxpr]]:
    """Yield the equations of a program and of the bodies in it, in order, each with the body that it is in."""
    body = close_jaxpr(program).jaxpr
    for eqn in body.eqns:
        if eqn.outvars:
            yield eqn, body
        for inner in find_subjaxprs(eqn):
            yield from _walk(inner)


def _is_attention(eqn: JaxprEqn, body: Jaxpr) -> bool:
    """Return True for the exponential of a softmax: its sum over the last axis is taken."""
    output = get_output(eqn)
    shape = output.shape
    if eqn.primitive.name != "exp" or not 3 <= len(shape) <= 5 or not shape[-1] == shape[-2] > 1:
        return False
    sums = (other for other in body.eqns if other.primitive.name == "reduce_sum")
    return any(eqn.outvars[0] in other.invars and other.params["axes"] == (len(shape) - 1,) for other in sums)
