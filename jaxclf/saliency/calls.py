"""The calls of the modules of a Linen model in the order of its program, and which of them contain attention."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import flax.linen as nn
import jax
from jax.ad_checkpoint import checkpoint_name
from jax.core import ShapedArray
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn
from jaxtyping import PyTree

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


def trace_calls(model: nn.Module, variables: PyTree, images: Array) -> list[Call]:
    """Return the calls of the modules inside a model, without the model itself, in the order in which they end.

    An attention is an exponential of scores [b, n, n] or [b, heads, n, n], between all tokens.
    """

    def run(images: Array) -> Array:
        with nn.intercept_methods(_mark_call):
            return bind_variables(model, variables)(images)

    # A module that is equal to one before it would not be called under `nn.jit`.
    with jax.disable_jit():
        program = jax.make_jaxpr(run)(images)
    return list(_find_calls(program))


def _mark_call(call: Any, arguments: tuple, options: dict[str, Any], context: Any) -> Any:
    """Call a method of a module between two marks in the program."""
    path = "/".join(context.module.path) if context.method_name == "__call__" else ""
    if not path or not arguments or not isinstance(arguments[0], jax.Array):
        return call(*arguments, **options)
    outputs = call(checkpoint_name(arguments[0], START + path), *arguments[1:], **options)
    return checkpoint_name(outputs, STOP + path) if isinstance(outputs, jax.Array) else outputs


def _find_calls(program: ClosedJaxpr) -> Iterator[Call]:
    attentions, started = 0, []
    for eqn in _walk(program):
        mark, shape = str(eqn.params.get("name", "")), cast(ShapedArray, eqn.outvars[0].aval).shape
        if _is_attention(eqn, shape):
            attentions += 1
        elif mark.startswith(START):
            started.append((mark.removeprefix(START), shape, attentions))
        elif mark.startswith(STOP):
            path, inputs, before = started.pop()
            while path != mark.removeprefix(STOP):  # calls whose output is no array have no end
                path, inputs, before = started.pop()
            yield Call(path, inputs, shape, before, attentions)


def _walk(program: Jaxpr | ClosedJaxpr) -> Iterator[JaxprEqn]:
    """Yield the equations of a program and of the bodies in it, in order."""
    for eqn in close_jaxpr(program).eqns:
        if eqn.outvars:
            yield eqn
        for body in find_subjaxprs(eqn):
            yield from _walk(body)


def _is_attention(eqn: JaxprEqn, shape: Shape) -> bool:
    return eqn.primitive.name == "exp" and len(shape) in (3, 4) and shape[-1] == shape[-2] > 1
