"""Recognition of softmax in a traced program: exponentials, divided by their sum.

`jax.nn.softmax` leaves no name in a program, so it is found by what it computes. A softmax that is written by hand as
exp(x - max) / sum, without the maximum, with a mask, or times 1 / sum, is found too. One that is computed in pieces,
such as exp(log_softmax(x)) or blockwise in a loop, is not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
from jax.extend.core import JaxprEqn
from jax.typing import ArrayLike
from jaxtyping import Float

from jaxclf.saliency.methods.primitives import CUSTOM_DERIVATIVES, REARRANGEMENTS, Operands
from jaxclf.types import Array
from jaxclf.xla.interpreter import Interpreter, Traced, bind, get_body, has_primitive, is_traced

Replacement = Callable[[Float[Array, "..."], Float[Array, "..."], tuple[int, ...]], Float[Array, "..."]]
"""Maps the inputs and the outputs of a softmax, and its axes, to other outputs."""


@dataclass(frozen=True, eq=False)
class Softmax:
    """The kind of an array that a softmax puts out."""

    inputs: Any
    """The value that it is computed from, before its maximum is subtracted: of the shape of the output, with -inf where
    entries are masked by `where`."""
    axes: tuple[int, ...]
    """The axes along which it sums to 1."""


@dataclass(frozen=True, eq=False)
class _Maximum:
    """The kind of a maximum along axes."""


@dataclass(frozen=True, eq=False)
class _Shifted:
    """The kind of values minus their maximum."""

    inputs: Any


@dataclass(frozen=True, eq=False)
class _Exponentials:
    """The kind of exponentials of some inputs, or of the inputs minus their maximum."""

    inputs: Any
    shifted: bool

    def has_inputs_of(self, other: _Exponentials) -> bool:
        """Return True if these are the same exponentials, which a program may compute twice."""
        return self.inputs is other.inputs and self.shifted == other.shifted


@dataclass(frozen=True, eq=False)
class _Total:
    """The kind of the sum of exponentials, or of 1 / sum if `inverse`."""

    terms: _Exponentials
    axes: tuple[int, ...]
    inverse: bool = False


Kind = Softmax | _Maximum | _Shifted | _Exponentials | _Total
_SHAPE_KEEPING = frozenset(("convert_element_type", "copy", "reduce_precision", "select_n"))
"""Primitives after which exponentials are still those of the same inputs, or 0 where a mask is."""
_ROW_KEEPING = REARRANGEMENTS | {"max", "select_n"}
"""Primitives after which there is still one number for each row."""


def infer_softmax_kind(eqn: JaxprEqn, arguments: Operands) -> Kind | None:
    """Return what the output of an equation is of a softmax: `Softmax` for its result, or one of the steps to it.

    Args:
        eqn: An equation with one output.
        arguments: Its inputs. `Traced` ones have the attribute `kind`, which is what this function returned for them,
            or anything else.
    """
    name = eqn.primitive.name
    traced = [x for x in arguments if is_traced(x)]
    if name == "select_n" and len(traced) == 2 and is_traced(arguments[0]):
        traced = traced[1:]  # by a mask that is computed
    if len(traced) == 2:
        return _infer_from_two(name, *traced)
    return _infer_from_one(eqn, traced[0], traced[0] is arguments[0]) if len(traced) == 1 else None


def _infer_from_two(name: str, left: Any, right: Any) -> Kind | None:
    if name == "sub" and isinstance(right.kind, _Maximum):
        return _Shifted(left)
    terms, total = (left.kind, right.kind) if isinstance(right.kind, _Total) else (right.kind, left.kind)
    if not (isinstance(total, _Total) and isinstance(terms, _Exponentials) and total.terms.has_inputs_of(terms)):
        return None
    divides = name == "div" and total is right.kind and not total.inverse
    return Softmax(terms.inputs, total.axes) if divides or (name == "mul" and total.inverse) else None


def _infer_from_one(eqn: JaxprEqn, value: Any, is_first: bool) -> Kind | None:
    name, kind = eqn.primitive.name, value.kind
    if name == "stop_gradient":
        return kind
    if name == "exp":
        shifted = isinstance(kind, _Shifted)
        return _Exponentials(kind.inputs if shifted else value, shifted)
    if name == "reduce_max":
        return _Maximum()
    if isinstance(kind, _Exponentials):
        if name == "reduce_sum":
            return _Total(kind, tuple(map(int, eqn.params["axes"])))
        return kind if name in _SHAPE_KEEPING else None
    if not isinstance(kind, _Total | _Maximum):
        return None
    if isinstance(kind, _Total) and ((name == "div" and not is_first) or eqn.params.get("y") == -1):
        return _Total(kind.terms, kind.axes, inverse=True)
    added = {"add"} if isinstance(kind, _Total) else set()  # epsilon, or an attention sink
    return kind if name in _ROW_KEEPING | added else None


@partial(jax.tree_util.register_dataclass, data_fields=("value",), meta_fields=(), drop_fields=("kind",))
@dataclass(frozen=True, eq=False)
class Classified(Traced):
    """An array with its kind, if it is one of those of a softmax."""

    kind: Kind | None = field(default=None)


class SoftmaxReplacer(Interpreter):
    """Evaluates a program of `Classified` values, and replaces the outputs of softmaxes."""

    def __init__(self, replace: Replacement):
        """Replace softmaxes by `replace(inputs, outputs, axes)`."""
        self.replace = replace

    def lift(self, value: ArrayLike) -> Classified:
        """Return an array as a value of no kind."""
        return Classified(value)

    def process_primitive(self, eqn: JaxprEqn, arguments: Operands) -> Any:
        """Evaluate an equation, and replace its output if it is that of a softmax."""
        if eqn.primitive.name in CUSTOM_DERIVATIVES and is_custom_softmax(eqn):
            return self.evaluate(get_body(eqn), arguments)
        outputs = bind(eqn, arguments)
        if eqn.primitive.multiple_results:
            return list(map(Classified, outputs))
        kind = infer_softmax_kind(eqn, arguments)
        if isinstance(kind, Softmax):
            outputs = self.replace(kind.inputs.value, outputs, kind.axes)
        return Classified(outputs, kind)


def is_custom_softmax(eqn: JaxprEqn) -> bool:
    """Return True if the body of an equation may be a softmax, as with the option `jax_softmax_custom_jvp`."""
    return all(has_primitive(eqn, name) for name in ("exp", "reduce_sum", "div"))
