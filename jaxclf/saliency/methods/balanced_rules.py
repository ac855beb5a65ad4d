"""A rewriter of traced programs to balanced gradients: gradient times input is conserved by every operation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import JaxprEqn
from jax.typing import ArrayLike

from jaxclf.saliency.methods import primitives
from jaxclf.saliency.methods.primitives import Operands
from jaxclf.saliency.methods.relu import is_custom_relu, is_modified_relu
from jaxclf.saliency.methods.roles import Carried, drop_weights, find_common_origin, infer_kind_and_role
from jaxclf.types import Array
from jaxclf.xla.interpreter import Interpreter, Traced, bind, get_array, get_body, is_traced


def balance(function: Callable) -> Callable:
    """Return a function with the same values and balanced gradients, which raises UserError where there is no rule."""

    def run(*arguments):
        outputs = Balancer().run(function, *jax.tree.map(Differentiated, arguments))
        return jax.tree.map(get_array, outputs, is_leaf=is_traced)

    return run


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("value",),
    meta_fields=(),
    drop_fields=("origin", "kind", "role", "base"),
)
@dataclass(frozen=True, eq=False)
class Differentiated(Carried):
    """An array that depends on the image."""

    base: Traced | None = None
    """The value of which this is a multiple by constants."""


class Balancer(Interpreter):
    """Evaluates a program with other gradients."""

    def lift(self, value: ArrayLike) -> Differentiated:
        """Return an array as one that depends on the image."""
        return Differentiated(value)

    def process_primitive(self, eqn: JaxprEqn, arguments: Operands) -> Any:
        """Evaluate an equation with a balanced gradient; raise UserError if there is no rule for it."""
        if is_custom_relu(eqn) or is_modified_relu(eqn):
            return [Differentiated(x, origin=arguments[0]) for x in bind(eqn, arguments)]
        if eqn.primitive.name in primitives.CUSTOM_DERIVATIVES:
            return self.evaluate(get_body(eqn), arguments)
        name = eqn.primitive.name
        outputs = RULES[name](eqn, arguments) if name in RULES else None
        if outputs is None:
            raise primitives.make_missing_rule_error("Balanced", eqn, "the method without Balanced")
        if eqn.primitive.multiple_results:
            return list(map(Differentiated, outputs))
        kind, role = infer_kind_and_role(eqn, arguments, constant_attention=True)
        origin = find_common_origin([x for x in arguments if is_traced(x)]) if name in _FUNCTIONS else None
        return Differentiated(outputs, _find_base(name, arguments), origin=origin, kind=kind, role=role)


def _find_base(name: str, arguments: Operands) -> Any:
    """Return the value of which the output of a primitive is a multiple by constants, if it is one."""
    places = [i for i, x in enumerate(arguments) if is_traced(x)]
    scales = name in ("convert_element_type", "mul", "neg") or (name == "div" and places == [0])
    return _get_base(arguments[places[0]]) if scales and len(places) == 1 else None


def _get_base(value: Any) -> Any:
    return value if value.base is None else value.base


def _keep_gradient(eqn: JaxprEqn, arguments: Operands) -> Any:
    """Linear and positively homogeneous operations, whose gradients times inputs are their values."""
    return bind(eqn, arguments)


def _balance_unary(eqn: JaxprEqn, arguments: Operands) -> Array | None:
    """An elementwise function of one value: its slope is that of the line from (0, f(0)), and f(0) is a bias."""
    operation, inputs = primitives.bind_dependents(eqn, arguments)
    if len(inputs) > 1:
        return None
    x, value = jnp.broadcast_to(inputs[0].value, primitives.get_output(eqn).shape), bind(eqn, arguments)
    if not jnp.issubdtype(x.dtype, jnp.floating) or not jnp.issubdtype(value.dtype, jnp.floating):
        return value
    at_zero = operation(jnp.zeros_like(x))
    at_zero = jnp.where(jnp.isfinite(at_zero), at_zero, 0)  # a logarithm has no bias
    small = jnp.abs(x) < 1e-3  # then the difference would be mostly rounding
    derivative = jax.jvp(operation, [x / 2], [jnp.ones_like(x)])[1]
    slope = jnp.where(small, derivative, (value - at_zero) / jnp.where(small, 1, x))
    slope = lax.stop_gradient(jnp.where(jnp.isfinite(slope), slope, 0))
    line = at_zero + jnp.where(jnp.isfinite(x), x, 0) * slope
    return lax.stop_gradient(value) + (line - lax.stop_gradient(line))


def _balance_division(eqn: JaxprEqn, arguments: Operands) -> Array | None:
    """A quotient: the divisor is constant."""
    numerator, divisor = arguments
    if not is_traced(divisor):
        return bind(eqn, arguments)
    if not is_traced(numerator):
        return _balance_unary(eqn, arguments)
    return bind(eqn, [numerator, lax.stop_gradient(divisor.value)])


def _balance_product(eqn: JaxprEqn, arguments: Operands) -> Array:
    """A product: a weight, and the gate in x * gate(x), are constant; other factors have half of the gradient each."""
    if not all(map(is_traced, arguments)):
        return bind(eqn, arguments)
    origin = find_common_origin(arguments) if eqn.primitive.name == "mul" else None
    factors = drop_weights(arguments) if origin is None else _drop_gate(arguments, origin)
    if factors is not arguments:
        return bind(eqn, [x if is_traced(x) else lax.stop_gradient(x) for x in factors])
    value = bind(eqn, arguments)
    return (value + lax.stop_gradient(value)) / 2


def _drop_gate(arguments: Operands, origin: Any) -> Operands:
    """Return two functions of one value, with an array in place of the second if the first is a multiple of it."""
    first, second = arguments
    if _get_base(first) is _get_base(origin):
        return [first, second.value]
    return [first.value, second] if _get_base(second) is _get_base(origin) else arguments


_FUNCTIONS = primitives.ELEMENTWISE - {"broadcast_in_dim"} | {"convert_element_type"}
_HOMOGENEOUS = frozenset((
    "abs", "argmax", "argmin", "is_finite", "max", "min", "reduce_max", "reduce_min", "reduce_window_max",
    "reduce_window_min", "select_n", "sort", "stop_gradient", "top_k",
))  # fmt: skip
RULES: dict[str, Callable[[JaxprEqn, Operands], Any]] = {
    **dict.fromkeys(primitives.UNARY | primitives.UNARY_WITH_CONSTANTS, _balance_unary),
    **dict.fromkeys(
        primitives.REARRANGEMENTS | primitives.SUMS | primitives.COMPARISONS | _HOMOGENEOUS, _keep_gradient
    ),
    **dict.fromkeys(primitives.PRODUCTS, _balance_product),
    "div": _balance_division,
}
"""The rule of each primitive. A rule returns None for operands that it does not handle."""
