"""Programs rewritten: a function is traced, and operations in it are replaced by others.

This finds what a model computes whether it is written with modules or with functions, once or several times over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, Literal

from jaxclf.types import UserError

Replacement = Callable[..., Any]
"""Takes the values an operation takes; gives its output, or a list where the operation has several."""
Rule = Callable[[Any], Replacement | None]
"""Says what stands in for an operation (a `JaxprEqn`); None leaves it as it is."""

INLINED = ("jit", "pjit", "closed_call", "core_call")


def rewritten(function: Callable, rule: Rule) -> Callable:
    """`function` with the operations that `rule` knows replaced, also inside jit, checkpoint, scan and cond.

    Raises UserError where an operation that must be replaced stands in a body that cannot be rewritten.
    """

    def run(*arguments):
        closed, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
        outputs = evaluate(closed, jax.tree.leaves(arguments), rule)
        return jax.tree.unflatten(jax.tree.structure(shapes), outputs)

    return run


def evaluate(closed: Any, arguments: list[Any], rule: Rule) -> list[Any]:
    """The outputs of a closed jaxpr, with the operations that `rule` knows replaced."""
    jaxpr = closed.jaxpr
    values: dict[Any, Any] = dict(zip(jaxpr.constvars, closed.consts, strict=True))
    values |= zip(jaxpr.invars, arguments, strict=True)

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    for eqn in jaxpr.eqns:
        outputs = _apply(eqn, [read(atom) for atom in eqn.invars], rule)
        values |= zip(eqn.outvars, outputs, strict=True)
    return [read(atom) for atom in jaxpr.outvars]


def _apply(eqn: Any, arguments: list[Any], rule: Rule) -> list[Any]:
    replacement = rule(eqn)
    if replacement is None and any(holds(body, rule) for body in bodies(eqn)):
        replacement = _with_new_bodies(eqn, rule)
    if replacement is None:
        outputs = eqn.primitive.bind(*arguments, **eqn.primitive.get_bind_params(eqn.params))
    else:
        outputs = replacement(*arguments)
    return list(outputs) if isinstance(outputs, list | tuple) else [outputs]


def bodies(eqn: Any) -> Iterator[Any]:
    """The jaxprs an operation holds."""
    for value in eqn.params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if hasattr(item, "eqns"):
                yield item


def holds(body: Any, rule: Rule) -> bool:
    """Whether the rule knows any operation in a jaxpr, or in the bodies of its operations."""
    return any(rule(eqn) is not None or any(holds(inner, rule) for inner in bodies(eqn)) for eqn in body.eqns)


def _with_new_bodies(eqn: Any, rule: Rule) -> Replacement:
    """A control-flow operation with its bodies rewritten."""
    name, params = eqn.primitive.name, eqn.params

    def body(closed: Any) -> Callable:
        return lambda *arguments: evaluate(closed, list(arguments), rule)

    if name in INLINED:
        return body(params.get("jaxpr") or params["call_jaxpr"])
    if name in ("checkpoint", "remat", "remat2"):
        closed = ClosedJaxpr(params["jaxpr"], ())
        return jax.checkpoint(body(closed), prevent_cse=params["prevent_cse"], policy=params["policy"])
    if name == "scan":
        return _scan(params, body(params["jaxpr"]))
    if name == "cond":
        branches = [body(branch) for branch in params["branches"]]
        return lambda index, *arguments: lax.switch(index, branches, *arguments)
    raise UserError(
        f"an operation that this method replaces stands inside {name!r}, whose body cannot be rewritten; "
        "write it outside, or under jit, checkpoint, vmap, scan or cond"
    )


def _scan(params: dict[str, Any], body: Callable) -> Replacement:
    consts, carried = params["num_consts"], params["num_carry"]

    def run(*arguments):
        fixed, carry, xs = arguments[:consts], arguments[consts : consts + carried], arguments[consts + carried :]

        def step(carry, x):
            outputs = body(*fixed, *carry, *x)
            return outputs[:carried], outputs[carried:]

        carry, ys = lax.scan(step, list(carry), list(xs), params["length"], params["reverse"], unroll=params["unroll"])
        return [*carry, *ys]

    return run


def fast_in_loops(function: Callable) -> Callable:
    """The same function, with convolutions that XLA's CPU backend runs fast inside compiled loops too.

    That backend brings convolutions into the order its library knows, [b, ..., c] and [..., c, features], but only
    those of the outermost program; inside a loop the others become plain nested loops, ten times slower (jax #12868).
    So they are written in that order from the start, behind barriers: XLA would fold the transpositions back in.
    """
    if jax.default_backend() != "cpu":
        return function
    return rewritten(function, lambda eqn: _ordered(eqn) if eqn.primitive.name == "conv_general_dilated" else None)


def _ordered(eqn: Any) -> Replacement | None:
    numbers = eqn.params["dimension_numbers"]
    (b, c, *space), (features, into, *window) = numbers.lhs_spec, numbers.rhs_spec
    (out_b, out_c, *out_space), rank = numbers.out_spec, len(numbers.lhs_spec)
    orders = (b, *space, c), (*window, into, features), (out_b, *out_space, out_c)
    plain = tuple(range(rank))
    if orders == (plain, plain, plain):
        return None
    axes = tuple(range(1, rank - 1))
    last = lax.ConvDimensionNumbers((0, rank - 1, *axes), (rank - 1, rank - 2, *range(rank - 2)), (0, rank - 1, *axes))

    def run(images, kernel):
        images, kernel = (
            x if order == plain else lax.optimization_barrier(x.transpose(order))
            for x, order in zip((images, kernel), orders[:2], strict=True)
        )
        outputs = eqn.primitive.bind(images, kernel, **(eqn.params | {"dimension_numbers": last}))
        return outputs if orders[2] == plain else lax.optimization_barrier(outputs).transpose(np.argsort(orders[2]))

    return run
