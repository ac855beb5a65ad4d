"""Interpreter of traced functions: subclasses replace primitives, or compute other values beside the arrays.

A function is traced to a jaxpr, so a pattern is found no matter which modules or functions of a model produce it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from operator import is_
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var
from jax.typing import ArrayLike

INLINED = ("jit", "pjit", "closed_call", "core_call")
CHECKPOINTS = ("checkpoint", "remat", "remat2")


@dataclass(frozen=True)
class Traced:
    """An array of a program with what an interpreter knows of it, or computes beside it."""

    value: Any


Value = ArrayLike | Traced
"""A value of a program: an array, a number, or an interpreter's own."""


class Interpreter(ABC):
    """Evaluates a program whose values are arrays and `Traced` values.

    It evaluates the bodies of jit, checkpoint, scan and cond too. The carry of a loop is `Traced` where the body makes
    it so in any iteration.
    """

    inlines: bool = False
    """Evaluate the bodies of checkpoint and scan in place, iteration by iteration, so that values can be taken out of
    them; memory is not saved then."""

    @abstractmethod
    def process_primitive(self, eqn: JaxprEqn, arguments: list[Value]) -> Any:
        """Return the outputs of an equation that the interpreter handles.

        Args:
            eqn: An equation of the jaxpr.
            arguments: The values of its inputs, `Traced` or arrays.

        Returns:
            A value, or a list of values if the primitive has multiple results.
        """

    def handles(self, eqn: JaxprEqn, arguments: list[Value]) -> bool:
        """Return True if an equation is passed to `process_primitive`; by default those with `Traced` inputs are."""
        return any(map(is_traced, arguments))

    def lift(self, value: ArrayLike) -> Value:
        """Return an array as a value of the interpreter, where others in the same place are `Traced`."""
        return value

    def lower(self, value: Traced) -> Value:
        """Return a `Traced` value in the form in which it leaves the body of a loop or a branch."""
        return value

    def convert(self, value: Value) -> Any:
        """Return any value in the form in which `Traced` values leave a body."""
        return self.lower(value) if isinstance(value, Traced) else self.lift(value)

    def run(self, function: Callable, *arguments: Any) -> Any:
        """Trace a function and evaluate it.

        Args:
            function: A function of pytrees of arrays.
            arguments: Pytrees of arrays and `Traced` values.

        Returns:
            The outputs of the function, as a pytree of arrays and `Traced` values.
        """
        leaves, tree = jax.tree.flatten(arguments, is_leaf=is_traced)
        arrays = jax.tree.unflatten(tree, [get_array(leaf) for leaf in leaves])
        jaxpr, shapes = jax.make_jaxpr(function, return_shape=True)(*arrays)
        return jax.tree.unflatten(jax.tree.structure(shapes), self.evaluate(jaxpr, leaves))

    def evaluate(self, jaxpr: ClosedJaxpr, arguments: list[Value]) -> list[Value]:
        """Return the outputs of a closed jaxpr for some arguments."""
        consts, program = jaxpr.consts, jaxpr.jaxpr
        values: dict[Var, Value] = dict(zip(program.constvars, consts, strict=True))
        values |= zip(program.invars, arguments, strict=True)

        def read(atom: Var | Literal) -> Value:
            return atom.val if isinstance(atom, Literal) else values[atom]

        for eqn in program.eqns:
            outputs = self._evaluate_equation(eqn, [read(atom) for atom in eqn.invars])
            values |= zip(eqn.outvars, outputs if isinstance(outputs, list | tuple) else [outputs], strict=True)
        return [read(atom) for atom in program.outvars]

    def evaluate_body(self, jaxpr: ClosedJaxpr, arguments: list[Value]) -> list[Value]:
        """Return the outputs of the body of a loop or a branch, lowered."""
        return [self._lower_traced(x) for x in self.evaluate(jaxpr, arguments)]

    def _evaluate_equation(self, eqn: JaxprEqn, arguments: list[Value]) -> Any:
        name, params = eqn.primitive.name, eqn.params
        if not self.handles(eqn, arguments):
            return bind(eqn, arguments)
        if name in INLINED:
            return self.evaluate(get_body(eqn), arguments)
        if name in CHECKPOINTS:
            if self.inlines:
                return self.evaluate(close_jaxpr(params["jaxpr"]), arguments)
            return self._evaluate_checkpoint(params, arguments)
        if name == "scan":
            return (self._evaluate_iterations if self.inlines else self._evaluate_scan)(params, arguments)
        if name == "cond" and not isinstance(index := self._lower_traced(arguments[0]), Traced):
            return self._evaluate_cond(params["branches"], index, arguments[1:])
        return self.process_primitive(eqn, arguments)

    def _evaluate_checkpoint(self, params: dict[str, Any], arguments: list[Value]) -> Any:
        if params["differentiated"]:
            # This body is the recomputation. Evaluated again by jax.checkpoint it would lose this mark, and XLA would
            # merge it with the first computation, whose results would be kept.
            arrays = iter(lax.optimization_barrier([x for x in arguments if not is_traced(x)]))
            separate = [x if is_traced(x) else next(arrays) for x in arguments]
            return self.evaluate_body(close_jaxpr(params["jaxpr"]), separate)
        # The arguments are closed over: passed to jax.checkpoint, constants would become tracers.
        body = partial(self.evaluate_body, close_jaxpr(params["jaxpr"]), arguments)
        return jax.checkpoint(body, prevent_cse=params["prevent_cse"], policy=params["policy"])()

    def _lower_traced(self, value: Value) -> Value:
        return self.lower(value) if isinstance(value, Traced) else value

    def _evaluate_cond(self, branches: Sequence[ClosedJaxpr], index: ArrayLike, arguments: list[Value]) -> list[Value]:
        bodies = [partial(self.evaluate_body, branch, arguments) for branch in branches]
        # An output is converted in all branches if it is `Traced` in one: branches must return the same types.
        outputs = zip(*map(jax.eval_shape, bodies), strict=True)
        any_traced = [any(map(is_traced, alternatives)) for alternatives in outputs]

        def evaluate_alike(body: Callable[[], list[Value]]) -> list[Value]:
            return [self.convert(x) if traced else x for x, traced in zip(body(), any_traced, strict=True)]

        return lax.switch(index, [partial(evaluate_alike, body) for body in bodies])

    def _evaluate_scan(self, params: dict[str, Any], arguments: list[Value]) -> list[Value]:
        constants, carry, xs = _split_scan_arguments(params, arguments)
        carry, xs = [[self._lower_traced(x) for x in part] for part in (carry, xs)]

        def body(carry: list[Value], x: list[Value]) -> list[Value]:
            return self.evaluate_body(params["jaxpr"], [*constants, *carry, *x])

        def step(carry: list[Value], x: list[Value]) -> tuple[list[Value], list[Value]]:
            outputs = body(carry, x)
            return self._convert_like(carry, outputs[: len(carry)]), outputs[len(carry) :]

        carry = self._stabilize_carry(lambda carry: body(carry, jax.tree.map(lambda x: x[0], xs)), carry)
        carry, ys = lax.scan(step, carry, xs, params["length"], params["reverse"], unroll=params["unroll"])
        return [*carry, *ys]

    def _evaluate_iterations(self, params: dict[str, Any], arguments: list[Value]) -> list[Value]:
        constants, carry, xs = _split_scan_arguments(params, arguments)
        outputs: list[list[Value]] = []
        places = range(params["length"])
        for place in reversed(places) if params["reverse"] else places:
            slices = jax.tree.map(lambda x, place=place: x[place], xs)
            results = self.evaluate(params["jaxpr"], [*constants, *carry, *slices])
            carry, ys = results[: len(carry)], results[len(carry) :]
            outputs.append([self.convert(y) for y in ys])
        outputs = outputs[::-1] if params["reverse"] else outputs
        return [*carry, *(jax.tree.map(lambda *ys: jnp.stack(ys), *column) for column in zip(*outputs, strict=True))]

    def _stabilize_carry(self, body: Callable[[list[Value]], list[Value]], carry: list[Value]) -> list[Value]:
        """Convert values of a carry until an iteration makes no other one `Traced`, as `lax.scan` requires."""
        new = self._convert_like(jax.eval_shape(lambda: body(carry))[: len(carry)], carry)
        return carry if all(map(is_, new, carry)) else self._stabilize_carry(body, new)

    def _convert_like(self, others: Sequence[object], values: Sequence[Value]) -> list[Value]:
        return [self.convert(x) if is_traced(other) else x for other, x in zip(others, values, strict=True)]


def _split_scan_arguments(params: dict[str, Any], arguments: list[Value]) -> list[list[Value]]:
    """Split the arguments of a scan into constants, carry and slices."""
    if "ft_in" in params:  # since jax 0.12
        return [list(part) for part in params["ft_in"].update(arguments).unpack()]
    first = params["num_consts"]
    last = first + params["num_carry"]
    return [arguments[:first], arguments[first:last], arguments[last:]]


def is_traced(value: object) -> bool:
    """Return True if a value is an interpreter's own."""
    return isinstance(value, Traced)


def get_array(value: Value) -> ArrayLike:
    """Return the array of a value."""
    return value.value if isinstance(value, Traced) else value


def bind(eqn: JaxprEqn, arguments: Sequence[Value]) -> Any:
    """Return the outputs of an equation, evaluated as it is on the arrays of its arguments."""
    return eqn.primitive.bind(*map(get_array, arguments), **eqn.primitive.get_bind_params(eqn.params))


def get_body(eqn: JaxprEqn) -> ClosedJaxpr:
    """Return the closed jaxpr of a call."""
    return eqn.params.get("jaxpr") or eqn.params["call_jaxpr"]


def close_jaxpr(jaxpr: Any) -> ClosedJaxpr:
    """Return a jaxpr without constants as a closed one, and a closed one unchanged."""
    return jaxpr if hasattr(jaxpr, "consts") else ClosedJaxpr(jaxpr, ())


def find_subjaxprs(eqn: JaxprEqn) -> Iterator[Jaxpr | ClosedJaxpr]:
    """Yield the jaxprs among the parameters of an equation."""
    for value in eqn.params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if hasattr(item, "eqns"):
                yield item


def has_primitive(eqn: JaxprEqn, name: str) -> bool:
    """Return True if an equation, or one in its bodies, applies the primitive of this name."""
    return eqn.primitive.name == name or any(
        has_primitive(inner, name) for body in find_subjaxprs(eqn) for inner in body.eqns
    )
