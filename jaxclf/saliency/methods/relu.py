"""Replacement of the ReLUs of a traced model, for methods that change their gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn
from jax.typing import ArrayLike
from jaxtyping import Float

from jaxclf.errors import UserError, require
from jaxclf.saliency.methods.primitives import get_output
from jaxclf.types import Array
from jaxclf.xla.interpreter import (
    Interpreter,
    Traced,
    Value,
    bind,
    close_jaxpr,
    find_subjaxprs,
    get_array,
    get_body,
    has_primitive,
    is_traced,
)

Relu = Callable[[Float[Array, "..."]], Float[Array, "..."]]
"""A ReLU, possibly with another gradient."""
SQUARES = ("square", "integer_pow")
RESHAPING = ("broadcast_in_dim", "convert_element_type", "copy", "reshape", "slice", "squeeze", "transpose")


def replace_relus(function: Callable, relu: Relu) -> Callable:
    """Return a function with `relu` in place of all its ReLUs.

    ReLUs are `jax.nn.relu` and maxima with a constant 0, also inside jit, checkpoint, vmap, scan and cond;
    `jax.nn.relu6` is a ReLU with a bound. The result raises UserError if the function has no ReLU, and if there is one
    in a body that cannot be rewritten.
    """

    def run(*arguments):
        relus = ReluReplacer(relu)
        outputs = relus.run(function, *arguments)
        require(
            relus.found > 0,
            "this model has no ReLU, neither jax.nn.relu nor a maximum with 0, so there is no gradient to modify; "
            "use Gradient instead",
        )
        return outputs

    return run


@dataclass(frozen=True)
class Known(Traced):
    """An array of a known kind: "zero", "square" (also a mean of squares) or "variance"."""

    kind: str


class ReluReplacer(Interpreter):
    """Replaces ReLUs, and counts them in `found`."""

    def __init__(self, relu: Relu):
        """Put `relu` in place of ReLUs."""
        self.relu = relu
        self.found = 0

    def handles(self, eqn: JaxprEqn, arguments: list[Value]) -> bool:
        """Return True if an equation may contain a ReLU, or tell the kind of an array."""
        if any(map(is_traced, arguments)) or not any(find_subjaxprs(eqn)):
            return True
        return any(has_primitive(eqn, name) for name in ("max", *SQUARES))

    def lower(self, value: Traced) -> ArrayLike:
        """Return the array."""
        return get_array(value)

    def process_primitive(self, eqn: JaxprEqn, arguments: list[Value]) -> Any:
        """Replace a ReLU, and evaluate other equations as they are."""
        if is_custom_relu(eqn):
            return self.evaluate(get_body(eqn), arguments)
        inputs = _find_relu_input(eqn, arguments)
        if inputs is not None:
            self.found += 1
            return self.relu(jnp.broadcast_to(inputs, get_output(eqn).shape))
        if any(self._has_relu(body) for body in find_subjaxprs(eqn)):
            raise UserError(
                f"a ReLU is inside {eqn.primitive.name!r}, whose body cannot be rewritten; "
                "move it outside, or under jit, checkpoint, vmap, scan or cond"
            )
        outputs = bind(eqn, arguments)
        kind = _infer_kind(eqn, arguments)
        return Known(outputs, kind) if kind else outputs

    def _has_relu(self, jaxpr: Jaxpr | ClosedJaxpr) -> bool:
        trial, closed = ReluReplacer(self.relu), close_jaxpr(jaxpr)
        jax.eval_shape(lambda *arguments: trial.evaluate_body(closed, list(arguments)), *closed.in_avals)
        return trial.found > 0


def is_custom_relu(eqn: JaxprEqn, names: tuple[str, ...] = ("relu", "relu6")) -> bool:
    """Return True if an equation is `jax.nn.relu` or `jax.nn.relu6`, which have custom derivatives."""
    if eqn.primitive.name != "custom_jvp_call":
        return False
    inner = get_body(eqn).eqns
    return len(inner) == 1 and inner[0].params.get("name") in names


def is_modified_relu(eqn: JaxprEqn) -> bool:
    """Return True if an equation is `jax.nn.relu` with another gradient."""
    if eqn.primitive.name != "custom_vjp_call":
        return False
    inner = get_body(eqn).eqns
    return len(inner) == 1 and is_custom_relu(inner[0], ("relu",))


def _find_relu_input(eqn: JaxprEqn, arguments: list[Value]) -> ArrayLike | None:
    """Return the input of a maximum with 0, or None for other equations."""
    if eqn.primitive.name != "max" or not jnp.issubdtype(get_output(eqn).dtype, jnp.floating):
        return None
    for inputs, other in (arguments, arguments[::-1]):
        # BatchNorm and LayerNorm compute a variance as max(0, mean(x^2) - mean(x)^2), against rounding, and Equinox as
        # max(0, mean((x - mean)^2)): these are no ReLUs.
        is_variance = _has_kind(inputs, "variance") or _has_kind(inputs, "square")
        if _is_zero(other) and not _is_zero(inputs) and not is_variance:
            return get_array(inputs)
    return None


def _is_zero(value: Value) -> bool:
    """Return True if an array is known to be zero while tracing."""
    if is_traced(value):
        return _has_kind(value, "zero")
    return not isinstance(value, Tracer) and not np.any(np.asarray(value))


def _infer_kind(eqn: JaxprEqn, arguments: list[Value]) -> str | None:
    """Return the kind of the output of an equation, if it is one that `_find_relu_input` distinguishes."""
    name = eqn.primitive.name
    if name in RESHAPING and _is_zero(arguments[0]):
        return "zero"
    if name in SQUARES and eqn.params.get("y", 2) == 2:
        return "square"
    inputs = [x for x in arguments if is_traced(x)]
    # A selection is that of `jnp.var`, which gives NaN for an empty array.
    averages = name in (*RESHAPING, "mul", "reduce_sum", "select_n") or (name == "div" and is_traced(arguments[0]))
    if averages and len(inputs) == 1 and _has_kind(inputs[0], "square"):
        return "square"
    return "variance" if name == "sub" and _has_kind(arguments[1], "square") else None


def _has_kind(value: Value, kind: str) -> bool:
    return isinstance(value, Known) and value.kind == kind
