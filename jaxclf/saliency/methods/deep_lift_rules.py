"""Programs at an image and at a baseline, with the difference of each value as a linear function of the pixels'."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial, reduce
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxclf.errors import UserError
from jaxclf.saliency.methods.primitives import (
    COMPARISONS,
    CURVES,
    CURVES_OF_ONE,
    MOVES,
    OWN_DERIVATIVES,
    PRODUCTS,
    SUMS,
    is_curve,
    of_dependents,
)
from jaxclf.xla.interpreter import Carried, Interpreter, body_of, bound, is_carried


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Pair(Carried):
    """A value at the image, and at the baseline; its `change` is linear in that of the pixels.

    Where the pixels change from the baseline to the image, so does it.
    """

    baseline: Any
    change: Any

    def map(self, function: Callable) -> Pair:
        """What a linear function makes of it."""
        return Pair(function(self.value), function(self.baseline), function(self.change))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Comparison(Carried):
    """A comparison at the image, and at the baseline; and what is compared."""

    baseline: Any
    sides: tuple[Any, Any]
    name: str = field(metadata={"static": True})


class Differences(Interpreter):
    """Says of each operation what its difference owes to those of its arguments."""

    def lifted(self, value: Any) -> Pair:
        """The same at both."""
        return as_pair(value)

    def operation(self, eqn: Any, arguments: list[Any]) -> Any:
        """An operation by its rule."""
        name = eqn.primitive.name
        if is_curve(eqn, arguments):
            return rescaled(eqn, arguments)
        if name in OWN_DERIVATIVES:
            return self.evaluate(body_of(eqn), arguments)
        compared = any(isinstance(x, Comparison) for x in arguments)
        outputs = RULES[name](eqn, arguments) if name in RULES and compared <= (name == "select_n") else None
        if outputs is None:
            raise UserError(
                f"DeepLift has no rule for {name!r} of what depends on the image here; take IntegratedGradients instead"
            )
        return outputs


def as_pair(value: Any) -> Pair:
    """An array that does not depend on the image as a pair; a pair as it is."""
    return value if is_carried(value) else Pair(value, value, jnp.zeros_like(value))


def halfway(x: Pair) -> Any:
    """The mean of both values."""
    return (x.value + x.baseline) / 2


def owed(value: Any, baseline: Any, to: Pair, slope: Any = 1.0) -> Pair:
    """A value that owes its difference to another one; where that has none, the slope says what it would owe."""
    difference = to.value - to.baseline
    rounding = 8 * jnp.finfo(difference.dtype).eps * jnp.maximum(jnp.abs(to.value), jnp.abs(to.baseline))
    same = jnp.abs(difference) <= rounding
    ratio = jnp.where(same, slope, (value - baseline) / jnp.where(same, 1, difference))
    return Pair(value, baseline, ratio * to.change)


def linear(eqn: Any, arguments: list[Any]) -> Any:
    """By the derivative halfway, which is exact for products too: each factor counts with the others at their mean."""
    operation, pairs = of_dependents(eqn, arguments)
    value, baseline = operation(*(x.value for x in pairs)), operation(*(x.baseline for x in pairs))
    change = jax.jvp(operation, [halfway(x) for x in pairs], [x.change for x in pairs])[1]
    if eqn.primitive.multiple_results:
        return [Pair(*output) for output in zip(value, baseline, change, strict=True)]
    return Pair(value, baseline, change)


def rescaled(eqn: Any, arguments: list[Any]) -> Pair | None:
    """A function of one number: all is owed to it."""
    operation, pairs = of_dependents(eqn, arguments)
    if len(pairs) > 1:
        return None
    x = pairs[0].map(lambda x: jnp.broadcast_to(x, eqn.outvars[0].aval.shape))
    only = (lambda x: operation(x)[0]) if eqn.primitive.multiple_results else operation
    slope = jax.jvp(only, [halfway(x)], [jnp.ones_like(x.value)])[1]
    return owed(only(x.value), only(x.baseline), x, slope)


def quotient(eqn: Any, arguments: list[Any]) -> Pair | None:
    """The numerator times the reciprocal."""
    above, below = arguments
    if not is_carried(below):
        return linear(eqn, arguments)
    if not is_carried(above):
        return rescaled(eqn, arguments)
    inverse = owed(1 / below.value, 1 / below.baseline, below, -1 / halfway(below) ** 2)
    return Pair(
        bound(eqn, [above.value, below.value]),
        bound(eqn, [above.baseline, below.baseline]),
        halfway(inverse) * above.change + halfway(above) * inverse.change,
    )


def extreme(eqn: Any, arguments: list[Any]) -> Pair | None:
    """The larger of two values, or the smaller."""
    if not all(map(is_carried, arguments)):
        return rescaled(eqn, arguments)
    return crossed(*arguments, larger=eqn.primitive.name == "max")


def crossed(first: Pair, second: Pair, larger: bool) -> Pair:
    """The larger of two: a rise is owed to the larger at the image, a fall to that at the baseline."""
    pick, beats = (jnp.maximum, jnp.greater) if larger else (jnp.minimum, jnp.less)
    value, baseline = pick(first.value, second.value), pick(first.baseline, second.baseline)
    at_image, at_baseline = beats(second.value, first.value), beats(second.baseline, first.baseline)
    is_second = jnp.where(beats(value, baseline), at_image, at_baseline)
    return owed(value, baseline, jax.tree.map(lambda x, y: jnp.where(is_second, y, x), first, second))


def reduced(eqn: Any, arguments: list[Any]) -> Pair:
    """The largest or smallest of many along some axes."""
    larger, axes = eqn.primitive.name == "reduce_max", eqn.params["axes"]
    last = tuple(range(-len(axes), 0))
    x = arguments[0].map(lambda x: jnp.moveaxis(x, axes, last).reshape(*eqn.outvars[0].aval.shape, -1))

    def at(places: Any) -> Pair:
        return x.map(lambda x: jnp.take_along_axis(x, places[..., None], -1, mode="promise_in_bounds")[..., 0])

    pick, beats = (jnp.argmax, jnp.greater) if larger else (jnp.argmin, jnp.less)
    at_image, at_baseline = pick(x.value, axis=-1), pick(x.baseline, axis=-1)
    value, baseline = at(at_image).value, at(at_baseline).baseline
    return owed(value, baseline, at(jnp.where(beats(value, baseline), at_image, at_baseline)))


def pooled(eqn: Any, arguments: list[Any]) -> Pair:
    """The largest or smallest of each window."""
    larger, params = eqn.primitive.name == "reduce_window_max", eqn.params
    edges = [
        (low, high, step - 1) for (low, high), step in zip(params["padding"], params["base_dilation"], strict=True)
    ]
    x, fill = arguments[0], -jnp.inf if larger else jnp.inf
    x = Pair(
        *(lax.pad(x, jnp.asarray(f, x.dtype), edges) for x, f in ((x.value, fill), (x.baseline, fill), (x.change, 0)))
    )

    def places(offsets: tuple[int, ...]) -> Pair:
        starts = [a * b for a, b in zip(offsets, params["window_dilation"], strict=True)]
        sides = zip(starts, eqn.outvars[0].aval.shape, params["window_strides"], strict=True)
        stops = [start + (side - 1) * stride + 1 for start, side, stride in sides]
        return x.map(lambda x: lax.slice(x, starts, stops, params["window_strides"]))

    windows = map(places, product(*map(range, params["window_dimensions"])))
    return reduce(partial(crossed, larger=larger), windows)


def compared(eqn: Any, arguments: list[Any]) -> Comparison:
    """Which of two is larger, or equal."""
    operation, pairs = of_dependents(eqn, arguments)
    at_image, at_baseline = operation(*(x.value for x in pairs)), operation(*(x.baseline for x in pairs))
    return Comparison(at_image, at_baseline, (arguments[0], arguments[-1]), eqn.primitive.name)


def selected(eqn: Any, arguments: list[Any]) -> Pair:
    """One of two cases. Where a comparison is decided otherwise at the baseline, the change is owed to its sides."""
    which, *cases = arguments
    if not is_carried(which):
        return linear(eqn, arguments)
    left, right = which.sides
    if which.name in LARGER and is_carried(left) and is_carried(right) and {id(left), id(right)} == set(map(id, cases)):
        return crossed(*cases, larger=LARGER[which.name] == (cases[1] is left))
    cases, sides = [as_pair(x) for x in cases], [as_pair(x) for x in which.sides]
    value = bound(eqn, [which.value, *(x.value for x in cases)])
    baseline = bound(eqn, [which.baseline, *(x.baseline for x in cases)])
    change = bound(eqn, [which.value, *(x.change for x in cases)])
    gap = jax.tree.map(lambda x, y: jnp.broadcast_to(x - y, value.shape), *sides)
    return Pair(value, baseline, jnp.where(which.value == which.baseline, change, owed(value, baseline, gap).change))


LARGER = {"gt": True, "ge": True, "lt": False, "le": False}
"""Whether a comparison that holds says that its left side is the larger."""
RULES: dict[str, Callable[[Any, list[Any]], Any]] = {
    **dict.fromkeys(MOVES | SUMS | PRODUCTS, linear),
    **dict.fromkeys(CURVES | CURVES_OF_ONE, rescaled),
    **dict.fromkeys(COMPARISONS | {"is_finite"}, compared),
    **dict.fromkeys(("max", "min"), extreme),
    **dict.fromkeys(("reduce_max", "reduce_min"), reduced),
    **dict.fromkeys(("reduce_window_max", "reduce_window_min"), pooled),
    "div": quotient,
    "select_n": selected,
    # The largest logit that softmax takes away is one: its values do change.
    "stop_gradient": lambda _, arguments: arguments[0],
}
