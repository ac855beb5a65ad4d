"""ReLUs, found in a traced program and replaced."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Float

from jaxclf.errors import UserError, require
from jaxclf.types import Array
from jaxclf.xla.interpreter import Carried, Interpreter, array, bodies, body_of, bound, closed, is_carried, mentions

Relu = Callable[[Float[Array, "..."]], Float[Array, "..."]]
RESHAPING = ("broadcast_in_dim", "convert_element_type", "copy", "reshape", "slice", "squeeze", "transpose")


def with_relus(function: Callable, relu: Relu) -> Callable:
    """The function with `relu` in the place of all its ReLUs.

    Those are `jax.nn.relu` and a maximum with a constant 0, also inside jit, checkpoint, vmap, scan and cond;
    `jax.nn.relu6` is one with a cap. The 0 that keeps a variance, mean(x^2) - mean(x)^2, from rounding below 0 is
    none. Raises UserError where there is no ReLU, and where one stands in a body that cannot be rewritten.
    """

    def run(*arguments):
        relus = Relus(relu)
        outputs = relus.run(function, *arguments)
        require(
            relus.found > 0,
            "this model has no ReLU, neither jax.nn.relu nor a maximum with 0, so there is nothing to guide; "
            "take Gradient instead",
        )
        return outputs

    return run


@dataclass(frozen=True)
class Known(Carried):
    """An array of which is known what it is: "zero", "square" or "variance"."""

    what: str


class Relus(Interpreter):
    """Replaces ReLUs, and counts them in `found`."""

    def __init__(self, relu: Relu):
        self.relu = relu
        self.found = 0

    def concerns(self, eqn: Any, arguments: list[Any]) -> bool:
        """Whatever may hold a ReLU, or tell what an array is."""
        return mentions(eqn, "max") or not any(bodies(eqn))

    def settled(self, value: Carried) -> Any:
        """The array."""
        return array(value)

    def operation(self, eqn: Any, arguments: list[Any]) -> Any:
        """A ReLU by the other one, what else by itself."""
        if is_own_relu(eqn):
            return self.evaluate(body_of(eqn), arguments)
        inputs = relu_inputs(eqn, arguments)
        if inputs is not None:
            self.found += 1
            return self.relu(jnp.broadcast_to(inputs, eqn.outvars[0].aval.shape))
        if any(self._is_in(body) for body in bodies(eqn)):
            raise UserError(
                f"a ReLU stands inside {eqn.primitive.name!r}, whose body cannot be rewritten; "
                "write it outside, or under jit, checkpoint, vmap, scan or cond"
            )
        outputs = bound(eqn, arguments)
        what = known(eqn, arguments)
        return Known(outputs, what) if what else outputs

    def _is_in(self, jaxpr: Any) -> bool:
        trial, jaxpr = Relus(self.relu), closed(jaxpr)
        jax.eval_shape(lambda *arguments: trial.body(jaxpr, list(arguments)), *jaxpr.in_avals)
        return trial.found > 0


def is_own_relu(eqn: Any, names: tuple[str, ...] = ("relu", "relu6")) -> bool:
    """Whether an operation is `jax.nn.relu` or `jax.nn.relu6`, which have derivatives of their own."""
    if eqn.primitive.name != "custom_jvp_call":
        return False
    inner = body_of(eqn).eqns
    return len(inner) == 1 and inner[0].params.get("name") in names


def relu_inputs(eqn: Any, arguments: list[Any]) -> Any:
    """What a maximum with 0 is taken of; None for other operations."""
    if eqn.primitive.name != "max" or not jnp.issubdtype(eqn.outvars[0].aval.dtype, jnp.floating):
        return None
    for inputs, other in (arguments, arguments[::-1]):
        if is_zero(other) and not is_zero(inputs) and not _is(inputs, "variance"):
            return array(inputs)
    return None


def is_zero(value: Any) -> bool:
    """Whether an array is known to be zero while tracing."""
    if is_carried(value):
        return _is(value, "zero")
    return not isinstance(value, Tracer) and not np.any(np.asarray(value))


def known(eqn: Any, arguments: list[Any]) -> str | None:
    """What an operation makes, if that is worth knowing."""
    name = eqn.primitive.name
    if name in RESHAPING and is_zero(arguments[0]):
        return "zero"
    if name == "square" or (name == "integer_pow" and eqn.params["y"] == 2):
        return "square"
    return "variance" if name == "sub" and _is(arguments[1], "square") else None


def _is(value: Any, what: str) -> bool:
    return isinstance(value, Known) and value.what == what
