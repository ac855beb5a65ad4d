"""Programs carried out anew: a function is traced, and its operations are done one by one, those in bodies too.

This finds what a model computes whether it is written with modules or with functions, once or several times over.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from operator import is_
from typing import Any

import jax
from jax import lax
from jax.extend.core import ClosedJaxpr, Literal

INLINED = ("jit", "pjit", "closed_call", "core_call")
CHECKPOINTS = ("checkpoint", "remat", "remat2")


@dataclass(frozen=True)
class Carried:
    """An array of a program with what an interpreter knows of it, or computes beside it."""

    value: Any


class Interpreter(ABC):
    """Does the operations of a program with arrays and with values of its own, which are `Carried`.

    It enters jit, checkpoint, scan and cond. A loop carries a value of its own where any turn makes it one.
    """

    @abstractmethod
    def operation(self, eqn: Any, arguments: list[Any]) -> Any:
        """What an operation (a `JaxprEqn`) gives that is of concern and is not entered: a value, or a list of them."""

    def concerns(self, eqn: Any, arguments: list[Any]) -> bool:
        """Whether an operation is to be looked into, as those of its own values are; others are done as they are."""
        return any(map(is_carried, arguments))

    def lifted(self, value: Any) -> Any:
        """An array in the form of the interpreter's own values."""
        return value

    def settled(self, value: Carried) -> Any:
        """A value of its own in the form in which it leaves a body."""
        return value

    def own(self, value: Any) -> Any:
        """Any value in the form of its own."""
        return self.settled(value) if is_carried(value) else self.lifted(value)

    def run(self, function: Callable, *arguments: Any) -> Any:
        """What a function gives for trees of arrays and of its own values."""
        leaves, tree = jax.tree.flatten(arguments, is_leaf=is_carried)
        arrays = jax.tree.unflatten(tree, [array(leaf) for leaf in leaves])
        jaxpr, shapes = jax.make_jaxpr(function, return_shape=True)(*arrays)
        return jax.tree.unflatten(jax.tree.structure(shapes), self.evaluate(jaxpr, leaves))

    def evaluate(self, jaxpr: Any, arguments: list[Any]) -> list[Any]:
        """The outputs of a closed jaxpr."""
        consts, jaxpr = jaxpr.consts, jaxpr.jaxpr
        values: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
        values |= zip(jaxpr.invars, arguments, strict=True)

        def read(atom: Any) -> Any:
            return atom.val if isinstance(atom, Literal) else values[atom]

        for eqn in jaxpr.eqns:
            outputs = self._outputs(eqn, [read(atom) for atom in eqn.invars])
            values |= zip(eqn.outvars, outputs if isinstance(outputs, list | tuple) else [outputs], strict=True)
        return [read(atom) for atom in jaxpr.outvars]

    def _outputs(self, eqn: Any, arguments: list[Any]) -> Any:
        name, params = eqn.primitive.name, eqn.params
        if not self.concerns(eqn, arguments):
            return bound(eqn, arguments)
        if name in INLINED:
            return self.evaluate(body_of(eqn), arguments)
        if name in CHECKPOINTS:
            # Closed over, not handed over: what is known while tracing stays known.
            body = partial(self.body, closed(params["jaxpr"]), arguments)
            return jax.checkpoint(body, prevent_cse=params["prevent_cse"], policy=params["policy"])()
        if name == "scan":
            return self._scan(params, arguments)
        if name == "cond" and not is_carried(index := self._left(arguments[0])):
            return self._cond(params["branches"], index, *arguments[1:])
        return self.operation(eqn, arguments)

    def body(self, jaxpr: Any, arguments: list[Any]) -> list[Any]:
        """The outputs of a closed jaxpr, in the form in which they leave it."""
        return [self._left(x) for x in self.evaluate(jaxpr, arguments)]

    def _left(self, value: Any) -> Any:
        return self.settled(value) if is_carried(value) else value

    def _cond(self, branches: Any, index: Any, *arguments: Any) -> list[Any]:
        bodies = [partial(self.body, branch, list(arguments)) for branch in branches]
        shapes = zip(*map(jax.eval_shape, bodies), strict=True)
        own = [any(map(is_carried, outputs)) for outputs in shapes]

        def alike(body):
            return [self.own(x) if mine else x for x, mine in zip(body(), own, strict=True)]

        return lax.switch(index, [partial(alike, body) for body in bodies])

    def _scan(self, params: dict[str, Any], arguments: list[Any]) -> list[Any]:
        fixed, carry, xs = _scan_arguments(params, arguments)
        carry, xs = [[self._left(x) for x in part] for part in (carry, xs)]

        def body(carry, x):
            return self.body(params["jaxpr"], [*fixed, *carry, *x])

        def step(carry, x):
            outputs = body(carry, x)
            return self._own_like(carry, outputs[: len(carry)]), outputs[len(carry) :]

        carry = self._steady(lambda carry: body(carry, jax.tree.map(lambda x: x[0], xs)), carry)
        carry, ys = lax.scan(step, carry, xs, params["length"], params["reverse"], unroll=params["unroll"])
        return [*carry, *ys]

    def _steady(self, body: Callable, carry: list[Any]) -> list[Any]:
        """A carry that a turn of a loop leaves in the form it has."""
        new = self._own_like(jax.eval_shape(lambda: body(carry))[: len(carry)], carry)
        return carry if all(map(is_, new, carry)) else self._steady(body, new)

    def _own_like(self, others: list[Any], values: list[Any]) -> list[Any]:
        return [self.own(x) if is_carried(other) else x for other, x in zip(others, values, strict=True)]


def _scan_arguments(params: dict[str, Any], arguments: list[Any]) -> list[list[Any]]:
    """Constants, carry and slices."""
    if "ft_in" in params:  # since jax 0.12
        return [list(part) for part in params["ft_in"].update(arguments).unpack()]
    first = params["num_consts"]
    last = first + params["num_carry"]
    return [arguments[:first], arguments[first:last], arguments[last:]]


def is_carried(value: Any) -> bool:
    """Whether a value is an interpreter's own."""
    return isinstance(value, Carried)


def array(value: Any) -> Any:
    """The array of a value."""
    return value.value if is_carried(value) else value


def bound(eqn: Any, arguments: list[Any]) -> Any:
    """What an operation gives for the arrays of its arguments, done as it is."""
    return eqn.primitive.bind(*map(array, arguments), **eqn.primitive.get_bind_params(eqn.params))


def body_of(eqn: Any) -> Any:
    """The closed jaxpr of a call."""
    return eqn.params.get("jaxpr") or eqn.params["call_jaxpr"]


def closed(jaxpr: Any) -> Any:
    """A jaxpr with its constants, of which an open one has none."""
    return jaxpr if hasattr(jaxpr, "consts") else ClosedJaxpr(jaxpr, ())


def bodies(eqn: Any) -> Iterator[Any]:
    """The jaxprs an operation holds."""
    for value in eqn.params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if hasattr(item, "eqns"):
                yield item


def mentions(eqn: Any, name: str) -> bool:
    """Whether an operation has this name, or holds one that has."""
    return eqn.primitive.name == name or any(mentions(inner, name) for body in bodies(eqn) for inner in body.eqns)
