"""Primitives of traced programs, grouped by what DeepLift and LRP do with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from jax.core import ShapedArray
from jax.extend.core import JaxprEqn

from jaxclf.errors import UserError
from jaxclf.xla.interpreter import INLINED, bind, get_body, is_traced

Operands = list[Any]
"""Inputs of an equation: arrays, or the `Traced` values of an interpreter, whose fields its rules read."""

REARRANGEMENTS = frozenset((
    "broadcast_in_dim", "concatenate", "convert_element_type", "copy", "dynamic_slice", "dynamic_update_slice",
    "gather", "optimization_barrier", "pad", "reduce_precision", "reshape", "rev", "scatter", "sharding_constraint",
    "slice", "split", "squeeze", "stack", "tile", "transpose", "unstack",
))  # fmt: skip
"""Primitives that only move values, or convert their dtype."""
SUMS = frozenset(("add", "add_any", "cumsum", "neg", "reduce_sum", "reduce_window_sum", "scatter-add", "sub"))
PRODUCTS = frozenset(("conv_general_dilated", "dot_general", "mul"))
COMPARISONS = frozenset(("eq", "ge", "gt", "le", "lt", "ne"))
UNARY = frozenset((
    "abs", "acos", "acosh", "asin", "asinh", "atan", "atanh", "cbrt", "ceil", "cos", "cosh", "erf", "erf_inv", "erfc",
    "exp", "exp2", "expm1", "floor", "integer_pow", "log", "log1p", "logistic", "round", "rsqrt", "sign", "sin", "sinh",
    "sqrt", "square", "tan", "tanh",
))  # fmt: skip
"""Elementwise functions of one argument."""
UNARY_WITH_CONSTANTS = frozenset(("atan2", "clamp", "pow", "rem"))
"""Elementwise functions that are handled if only one argument depends on the image."""
CUSTOM_DERIVATIVES = frozenset(("custom_jvp_call", "custom_vjp_call"))
ELEMENTWISE = UNARY | UNARY_WITH_CONSTANTS | COMPARISONS | {
    "add", "broadcast_in_dim", "div", "max", "min", "mul", "neg", "select_n", "stop_gradient", "sub",
}  # fmt: skip


def get_output(eqn: JaxprEqn) -> ShapedArray:
    """Return the shape and dtype of the first output of an equation."""
    return cast(ShapedArray, eqn.outvars[0].aval)


def bind_dependents(eqn: JaxprEqn, arguments: Operands) -> tuple[Callable, Operands]:
    """Return an equation as a function of its `Traced` inputs, and these inputs."""
    places = [place for place, argument in enumerate(arguments) if is_traced(argument)]

    def operation(*values):
        operands = list(arguments)
        for place, value in zip(places, values, strict=True):
            operands[place] = value
        return bind(eqn, operands)

    return operation, [arguments[place] for place in places]


def is_custom_unary(eqn: JaxprEqn, arguments: Operands) -> bool:
    """Return True for an elementwise function with a custom JVP, such as `nn.silu`, of one `Traced` input."""
    return eqn.primitive.name == "custom_jvp_call" and sum(map(is_traced, arguments)) == 1 and is_elementwise(eqn)


def is_elementwise(eqn: JaxprEqn) -> bool:
    """Return True if an equation, or every equation in its body, works elementwise."""
    if eqn.primitive.name in (*INLINED, "custom_jvp_call"):
        return all(map(is_elementwise, get_body(eqn).eqns))
    return eqn.primitive.name in ELEMENTWISE


def make_missing_rule_error(method: str, eqn: JaxprEqn, instead: str) -> UserError:
    """Return the error for an operation of which a method has no rule. `instead` names what has one."""
    name = eqn.primitive.name
    if "dot_product_attention" in name:
        return UserError(
            f"{method} cannot look into the attention of cuDNN ({name!r}); "
            "set implementation='xla' in jax.nn.dot_product_attention"
        )
    return UserError(
        f"{method} has no rule for {name!r}, which this model applies to values that depend on the image; "
        f"use {instead} instead"
    )
