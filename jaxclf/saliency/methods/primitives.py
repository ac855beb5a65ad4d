"""Kinds of operations of a traced program, by the names of their primitives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jaxclf.xla.interpreter import INLINED, body_of, bound, is_carried

MOVES = frozenset((
    "broadcast_in_dim", "concatenate", "convert_element_type", "copy", "dynamic_slice", "dynamic_update_slice",
    "gather", "optimization_barrier", "pad", "reduce_precision", "reshape", "rev", "scatter", "sharding_constraint",
    "slice", "split", "squeeze", "stack", "tile", "transpose", "unstack",
))  # fmt: skip
"""They take numbers to other places."""
SUMS = frozenset(("add", "add_any", "cumsum", "neg", "reduce_sum", "reduce_window_sum", "scatter-add", "sub"))
PRODUCTS = frozenset(("conv_general_dilated", "dot_general", "mul"))
COMPARISONS = frozenset(("eq", "ge", "gt", "le", "lt", "ne"))
CURVES = frozenset((
    "abs", "acos", "acosh", "asin", "asinh", "atan", "atanh", "cbrt", "ceil", "cos", "cosh", "erf", "erf_inv", "erfc",
    "exp", "exp2", "expm1", "floor", "integer_pow", "log", "log1p", "logistic", "round", "rsqrt", "sign", "sin", "sinh",
    "sqrt", "square", "tan", "tanh",
))  # fmt: skip
"""Functions of one number."""
CURVES_OF_ONE = frozenset(("atan2", "clamp", "pow", "rem"))
"""Functions of one number where their other arguments do not depend on the image."""
OWN_DERIVATIVES = frozenset(("custom_jvp_call", "custom_vjp_call"))
_ELEMENTWISE = CURVES | CURVES_OF_ONE | COMPARISONS | {"add", "broadcast_in_dim", "div", "max", "min", "mul", "neg",
                                                       "select_n", "stop_gradient", "sub"}  # fmt: skip


def of_dependents(eqn: Any, arguments: list[Any]) -> tuple[Callable, list[Any]]:
    """An operation as a function of those of its arguments that are carried, and these."""
    places = [place for place, argument in enumerate(arguments) if is_carried(argument)]

    def operation(*values):
        operands = list(arguments)
        for place, value in zip(places, values, strict=True):
            operands[place] = value
        return bound(eqn, operands)

    return operation, [arguments[place] for place in places]


def is_curve(eqn: Any, arguments: list[Any]) -> bool:
    """Whether a function with a derivative of its own is one of single numbers, given one argument that is carried."""
    return eqn.primitive.name == "custom_jvp_call" and sum(map(is_carried, arguments)) == 1 and is_elementwise(eqn)


def is_elementwise(eqn: Any) -> bool:
    """Whether an operation, or all it calls, works on each number by itself."""
    if eqn.primitive.name in (*INLINED, "custom_jvp_call"):
        return all(map(is_elementwise, body_of(eqn).eqns))
    return eqn.primitive.name in _ELEMENTWISE
