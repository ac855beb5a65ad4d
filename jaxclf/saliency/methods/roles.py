"""What a value is to the operations that use it: a function of one other value, or a weight of a product.

Rules of products depend on it. In x * gate(x) both factors are functions of the same value, and in x / deviation(x) or
softmax(...) @ x one factor is a weight.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from jax.extend.core import JaxprEqn

from jaxclf.saliency.methods.primitives import ELEMENTWISE, REARRANGEMENTS, Operands
from jaxclf.saliency.methods.softmax import Kind, Softmax, infer_softmax_kind
from jaxclf.xla.interpreter import Traced, is_traced

Role = Literal["sum", "weight"]
"""A sum along axes and elementwise functions of such sums, or what acts as a constant in products: a root or reciprocal
of a sum, such as 1 / standard deviation, and functions of weights alone."""
_ROW_KEEPING = ELEMENTWISE | REARRANGEMENTS
_DEVIATIONS = frozenset(("pow", "rsqrt", "sqrt"))


@dataclass(frozen=True, eq=False, kw_only=True)
class Carried(Traced):
    """A value that depends on the image, with its place in the program."""

    origin: Traced | None = None
    """The value of which this is an elementwise function."""
    kind: Kind | None = None
    """What it is of a softmax."""
    role: Role | None = None


def infer_kind_and_role(
    eqn: JaxprEqn, arguments: Operands, constant_attention: bool
) -> tuple[Kind | None, Role | None]:
    """Return what the output of an equation is, from what its inputs are.

    Args:
        eqn: An equation with one output.
        arguments: Its inputs: `Carried` if they depend on the image.
        constant_attention: Softmaxes put out weights.
    """
    kind = infer_softmax_kind(eqn, arguments)
    if isinstance(kind, Softmax) and constant_attention:
        return kind, "weight"
    return kind, _infer_role(eqn, arguments)


def _infer_role(eqn: JaxprEqn, arguments: Operands) -> Role | None:
    name, inputs = eqn.primitive.name, [x for x in arguments if is_traced(x)]
    roles = {x.role for x in inputs}
    if roles == {"weight"}:
        return "weight"
    if name == "reduce_sum" or (name == "dot_general" and arguments[0] is arguments[1]):
        return "sum"
    if roles != {"sum"} or name not in _ROW_KEEPING:
        return None
    inverts = name == "div" and not is_traced(arguments[0])
    return "weight" if inverts or name in _DEVIATIONS or eqn.params.get("y", 1) < 0 else "sum"


def drop_weights(arguments: Operands) -> Operands:
    """Return the factors of a product with arrays in place of weights, if another factor is none."""
    if {x.role == "weight" for x in arguments if is_traced(x)} != {True, False}:
        return arguments
    return [x.value if is_traced(x) and x.role == "weight" else x for x in arguments]


def find_common_origin(values: Sequence[Any]) -> Any:
    """Return the nearest value of which all values are elementwise functions, or None; of one value, that value."""
    first, *others = map(list, map(_walk_origins, values))
    return next((x for x in first if all(any(x is y for y in other) for other in others)), None)


def _walk_origins(value: Any) -> Iterator[Any]:
    """Yield a value, its origin, the origin of that, and so on."""
    while value is not None:
        yield value
        value = value.origin
