"""Rules of DeepLift: an interpreter that propagates differences between an image and a baseline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial, reduce
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import JaxprEqn

from jaxclf.saliency.methods import primitives
from jaxclf.saliency.methods.primitives import Operands
from jaxclf.types import Array
from jaxclf.xla.interpreter import Interpreter, Traced, Value, bind, get_body, is_traced


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Pair(Traced):
    """A value at the image and at the baseline, with its `change`.

    The change is a linear function of the change of the pixels, and equals value - baseline where the pixels change
    from the baseline to the image. Its transpose gives the multipliers.
    """

    baseline: Any
    change: Any

    def map(self, function: Callable[[Array], Array]) -> Pair:
        """Apply a linear function to the value, the baseline and the change."""
        return Pair(function(self.value), function(self.baseline), function(self.change))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Comparison(Traced):
    """The result of a comparison at the image and at the baseline, with its two operands."""

    baseline: Any
    sides: tuple[Any, Any]
    name: str = field(metadata={"static": True})


class Differences(Interpreter):
    """Evaluates a program on pairs of values, with one rule per primitive."""

    def lift(self, value: Value) -> Pair:
        """Return a pair that is the same at the image and at the baseline."""
        return _make_pair(value)

    def process_primitive(self, eqn: JaxprEqn, arguments: Operands) -> Any:
        """Apply the rule of a primitive; raise UserError if there is none."""
        name = eqn.primitive.name
        if primitives.is_custom_unary(eqn, arguments):
            return _propagate_unary(eqn, arguments)
        if name in primitives.CUSTOM_DERIVATIVES:
            return self.evaluate(get_body(eqn), arguments)
        compares = any(isinstance(x, Comparison) for x in arguments)
        outputs = RULES[name](eqn, arguments) if name in RULES and compares <= (name == "select_n") else None
        if outputs is None:
            raise primitives.make_missing_rule_error("DeepLift", eqn, "IntegratedGradients")
        return outputs


def _make_pair(value: Any) -> Pair:
    """Return an array as a pair without change, and a pair unchanged."""
    return value if is_traced(value) else Pair(value, value, jnp.zeros_like(value))


def _compute_midpoint(x: Pair) -> Array:
    return (x.value + x.baseline) / 2


def _apply_rescale_rule(value: Array, baseline: Array, source: Pair, slope: Array | float = 1.0) -> Pair:
    """Return a value whose change is that of its source, times the ratio of their differences.

    Where the source has no difference the ratio is 0 / 0, and `slope`, its limit, takes its place.
    """
    difference = source.value - source.baseline
    # A difference of a few units in the last place is rounding, and a ratio of two such differences is noise.
    rounding = 8 * jnp.finfo(difference.dtype).eps * jnp.maximum(jnp.abs(source.value), jnp.abs(source.baseline))
    same = jnp.abs(difference) <= rounding
    ratio = jnp.where(same, slope, (value - baseline) / jnp.where(same, 1, difference))
    return Pair(value, baseline, ratio * source.change)


def _propagate_linear(eqn: JaxprEqn, arguments: Operands) -> Pair | list[Pair]:
    """Linear functions and products, by the derivative at the midpoint."""
    operation, pairs = primitives.bind_dependents(eqn, arguments)
    value, baseline = operation(*(x.value for x in pairs)), operation(*(x.baseline for x in pairs))
    # At the midpoint the derivative is exact for products too: ab - a0 b0 = mean(b) (a - a0) + mean(a) (b - b0).
    change = jax.jvp(operation, [_compute_midpoint(x) for x in pairs], [x.change for x in pairs])[1]
    if eqn.primitive.multiple_results:
        return [Pair(*output) for output in zip(value, baseline, change, strict=True)]
    return Pair(value, baseline, change)


def _propagate_conversion(eqn: JaxprEqn, arguments: Operands) -> Pair | list[Pair] | None:
    """A conversion of floats. Integers, such as indices, have no differences."""
    return _propagate_linear(eqn, arguments) if jnp.issubdtype(primitives.get_output(eqn).dtype, jnp.floating) else None


def _propagate_unary(eqn: JaxprEqn, arguments: Operands) -> Pair | None:
    """An elementwise function of one pair, by the rescale rule."""
    operation, pairs = primitives.bind_dependents(eqn, arguments)
    if len(pairs) > 1:
        return None
    x = pairs[0].map(lambda x: jnp.broadcast_to(x, primitives.get_output(eqn).shape))
    only = (lambda x: operation(x)[0]) if eqn.primitive.multiple_results else operation
    slope = jax.jvp(only, [_compute_midpoint(x)], [jnp.ones_like(x.value)])[1]
    return _apply_rescale_rule(only(x.value), only(x.baseline), x, slope)


def _propagate_division(eqn: JaxprEqn, arguments: Operands) -> Pair | list[Pair] | None:
    """A quotient, as the product of the numerator and the reciprocal of the denominator."""
    numerator, denominator = arguments
    if not is_traced(denominator):
        return _propagate_linear(eqn, arguments)
    if not is_traced(numerator):
        return _propagate_unary(eqn, arguments)
    inverse = _apply_rescale_rule(
        1 / denominator.value, 1 / denominator.baseline, denominator, slope=-1 / _compute_midpoint(denominator) ** 2
    )
    return Pair(
        bind(eqn, [numerator.value, denominator.value]),
        bind(eqn, [numerator.baseline, denominator.baseline]),
        _compute_midpoint(inverse) * numerator.change + _compute_midpoint(numerator) * inverse.change,
    )


def _propagate_extremum(eqn: JaxprEqn, arguments: Operands) -> Pair | None:
    """An elementwise maximum or minimum."""
    if not all(map(is_traced, arguments)):
        return _propagate_unary(eqn, arguments)
    return _combine_extremum(*arguments, larger=eqn.primitive.name == "max")


def _combine_extremum(first: Pair, second: Pair, larger: bool) -> Pair:
    """The larger (or smaller) of two pairs.

    A rise is attributed to the operand that is larger at the image, a fall to the one that is larger at the baseline.
    """
    pick, beats = (jnp.maximum, jnp.greater) if larger else (jnp.minimum, jnp.less)
    value, baseline = pick(first.value, second.value), pick(first.baseline, second.baseline)
    # Strict comparisons: of equal operands the first counts, as in an argmax.
    at_image, at_baseline = beats(second.value, first.value), beats(second.baseline, first.baseline)
    is_second = jnp.where(beats(value, baseline), at_image, at_baseline)
    return _apply_rescale_rule(value, baseline, jax.tree.map(lambda x, y: jnp.where(is_second, y, x), first, second))


def _propagate_reduction(eqn: JaxprEqn, arguments: Operands) -> Pair:
    """A maximum or minimum along axes, by the same rule as that of two operands."""
    larger, axes = eqn.primitive.name == "reduce_max", eqn.params["axes"]
    last = tuple(range(-len(axes), 0))
    x = arguments[0].map(lambda x: jnp.moveaxis(x, axes, last).reshape(*primitives.get_output(eqn).shape, -1))

    def at(places: Array) -> Pair:
        return x.map(lambda x: jnp.take_along_axis(x, places[..., None], -1, mode="promise_in_bounds")[..., 0])

    pick, beats = (jnp.argmax, jnp.greater) if larger else (jnp.argmin, jnp.less)
    at_image, at_baseline = pick(x.value, axis=-1), pick(x.baseline, axis=-1)
    value, baseline = at(at_image).value, at(at_baseline).baseline
    return _apply_rescale_rule(value, baseline, at(jnp.where(beats(value, baseline), at_image, at_baseline)))


def _propagate_pooling(eqn: JaxprEqn, arguments: Operands) -> Pair:
    """Max or min pooling, as a maximum or minimum of strided slices, one for each place in the window."""
    larger, params = eqn.primitive.name == "reduce_window_max", eqn.params
    edges = [
        (low, high, step - 1) for (low, high), step in zip(params["padding"], params["base_dilation"], strict=True)
    ]
    x, fill = arguments[0], -jnp.inf if larger else jnp.inf
    x = Pair(
        *(lax.pad(x, jnp.asarray(f, x.dtype), edges) for x, f in ((x.value, fill), (x.baseline, fill), (x.change, 0)))
    )

    def slice_window(offsets: tuple[int, ...]) -> Pair:
        starts = [a * b for a, b in zip(offsets, params["window_dilation"], strict=True)]
        sides = zip(starts, primitives.get_output(eqn).shape, params["window_strides"], strict=True)
        stops = [start + (side - 1) * stride + 1 for start, side, stride in sides]
        return x.map(lambda x: lax.slice(x, starts, stops, params["window_strides"]))

    windows = map(slice_window, product(*map(range, params["window_dimensions"])))
    return reduce(partial(_combine_extremum, larger=larger), windows)


def _compare(eqn: JaxprEqn, arguments: Operands) -> Comparison:
    operation, pairs = primitives.bind_dependents(eqn, arguments)
    at_image, at_baseline = operation(*(x.value for x in pairs)), operation(*(x.baseline for x in pairs))
    return Comparison(at_image, at_baseline, (arguments[0], arguments[-1]), eqn.primitive.name)


def _propagate_selection(eqn: JaxprEqn, arguments: Operands) -> Pair | list[Pair]:
    """A selection between two cases.

    Where the condition differs between image and baseline, the change is attributed to the compared values.
    """
    which, *cases = arguments
    if not is_traced(which):
        return _propagate_linear(eqn, arguments)
    left, right = which.sides
    # `where(a > b, a, b)` is a maximum.
    if which.name in LARGER and is_traced(left) and is_traced(right) and {id(left), id(right)} == set(map(id, cases)):
        return _combine_extremum(*cases, larger=LARGER[which.name] == (cases[1] is left))
    cases, sides = [_make_pair(x) for x in cases], [_make_pair(x) for x in which.sides]
    value = bind(eqn, [which.value, *(x.value for x in cases)])
    baseline = bind(eqn, [which.baseline, *(x.baseline for x in cases)])
    change = bind(eqn, [which.value, *(x.change for x in cases)])
    gap = jax.tree.map(lambda x, y: jnp.broadcast_to(x - y, value.shape), *sides)
    crossing = _apply_rescale_rule(value, baseline, gap)
    return Pair(value, baseline, jnp.where(which.value == which.baseline, change, crossing.change))


LARGER = {"gt": True, "ge": True, "lt": False, "le": False}
"""True for comparisons that hold if their left side is the larger one."""
RULES: dict[str, Callable[[JaxprEqn, Operands], Any]] = {
    **dict.fromkeys(primitives.REARRANGEMENTS | primitives.SUMS | primitives.PRODUCTS, _propagate_linear),
    **dict.fromkeys(primitives.UNARY | primitives.UNARY_WITH_CONSTANTS, _propagate_unary),
    **dict.fromkeys(primitives.COMPARISONS | {"is_finite"}, _compare),
    **dict.fromkeys(("max", "min"), _propagate_extremum),
    **dict.fromkeys(("reduce_max", "reduce_min"), _propagate_reduction),
    **dict.fromkeys(("reduce_window_max", "reduce_window_min"), _propagate_pooling),
    "convert_element_type": _propagate_conversion,
    "div": _propagate_division,
    "select_n": _propagate_selection,
    # `nn.softmax` stops the gradient of the largest logit that it subtracts, but the value does change.
    "stop_gradient": lambda _, arguments: arguments[0],
}
"""The rule of each primitive. A rule returns None for operands that it does not handle."""
