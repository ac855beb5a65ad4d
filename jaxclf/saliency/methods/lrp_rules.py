"""Programs that carry, beside each value, how its relevance is divided: linear functions, to be read backwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxclf.errors import UserError
from jaxclf.saliency.methods.primitives import COMPARISONS, CURVES, CURVES_OF_ONE, MOVES, OWN_DERIVATIVES, of_dependents
from jaxclf.xla.interpreter import Carried, Interpreter, array, body_of, bound, is_carried


@partial(jax.tree_util.register_dataclass, data_fields=("value", "share"), meta_fields=(), drop_fields=("origin",))
@dataclass(frozen=True, eq=False)
class Relevant(Carried):
    """A value at the image and its `share`, linear in shares given to the pixels.

    The transpose of that linear function takes relevance of the value to relevance of the pixels.
    """

    share: Any
    origin: Carried | None = None
    """What this is a function of, number by number."""


@dataclass(frozen=True, eq=False)
class Part:
    """A part of a layer's relevance: the shares of its inputs are parts of a sum, to which biases belong too."""

    weight: float
    numerator: Any
    denominator: Any
    of_bias: Callable[[Any], Any]
    """What a bias adds to the denominator."""


@dataclass(frozen=True, eq=False)
class Layer(Carried):
    """What a layer puts out. There may be a bias still to come."""

    parts: tuple[Part, ...]
    scalable: bool
    """Whether a factor to come belongs to the layer: whether the denominator is the value itself."""
    origin: Carried | None = None

    def replaced(self, value: Any, linear: Callable[[Any], Any], origin: Carried | None = None) -> Layer:
        """What a linear function makes of it, which gives this value."""
        parts = []
        for part in self.parts:
            numerator, denominator = jnp.broadcast_arrays(part.numerator, part.denominator)
            parts.append(Part(part.weight, linear(numerator), linear(denominator), part.of_bias))
        return Layer(value, tuple(parts), self.scalable, origin)


LayerRule = Callable[[Callable[[Any, Any], Any], Any, Any, Any], tuple[Part, ...]]
"""Takes a layer as a function of weights and inputs, the weights, the inputs, and these times their shares."""


def summed(value: Any, terms: Any, origin: Carried | None = None) -> Layer:
    """A layer without weights: each term counts as what it is."""
    return Layer(value, (Part(1.0, terms, value, lambda bias: bias),), True, origin)


class Relevances(Interpreter):
    """Divides relevance between the arguments of each operation; `rule` does so for layers with weights.

    None is a sum of its terms. Denominators are kept `epsilon` away from 0.
    """

    def __init__(self, rule: LayerRule | None, epsilon: float):
        self.rule = rule
        self.epsilon = epsilon

    def lifted(self, value: Any) -> Relevant:
        """Without a share."""
        return Relevant(value, jnp.zeros_like(value))

    def settled(self, value: Carried) -> Relevant:
        """A layer with no more to come."""
        if not isinstance(value, Layer):
            return value  # pyright: ignore[reportReturnType]
        shares = [part.weight * self._divided(part.numerator, part.denominator) for part in value.parts]
        return Relevant(value.value, jnp.broadcast_to(sum(shares), value.value.shape), value.origin)

    def _divided(self, numerator: Any, denominator: Any) -> Any:
        away = denominator + self.epsilon * jnp.where(denominator < 0, -1, 1)
        return jnp.where(away == 0, 0, numerator / jnp.where(away == 0, 1, away))

    def operation(self, eqn: Any, arguments: list[Any]) -> Any:
        """An operation by its rule."""
        name = eqn.primitive.name
        if name in OWN_DERIVATIVES:
            return self.evaluate(body_of(eqn), arguments)
        outputs = RULES[name](self, eqn, arguments) if name in RULES else None
        if outputs is None:
            raise UserError(f"Lrp has no rule for {name!r} of what depends on the image here; take DeepLift instead")
        return outputs

    def moved(self, eqn: Any, arguments: list[Any]) -> Any:
        """Numbers at other places, or the largest of some: shares go with them, and so do layers."""
        operation, inputs = of_dependents(eqn, arguments)
        values = [x.value for x in inputs]
        if not all(jnp.issubdtype(x.dtype, jnp.floating) for x in values):
            return None
        if isinstance(inputs[0], Layer) and len(inputs) == 1 and not eqn.primitive.multiple_results:
            return inputs[0].replaced(bound(eqn, arguments), lambda x: jax.jvp(operation, values, [x])[1])
        value, share = jax.jvp(operation, values, [self.settled(x).share for x in inputs])
        if eqn.primitive.multiple_results:
            return [Relevant(*output) for output in zip(value, share, strict=True)]
        return Relevant(value, share)

    def curve(self, eqn: Any, arguments: list[Any]) -> Relevant | None:
        """A function of one number, be it by several functions of it: it has the share of that."""
        origin = common_origin([x for x in arguments if is_carried(x)])
        if origin is None:
            return None
        value, share = bound(eqn, arguments), self.settled(origin).share
        if jnp.issubdtype(value.dtype, jnp.floating):
            share = share.astype(value.dtype)
        return Relevant(value, jnp.broadcast_to(share, value.shape), origin)

    def compared(self, eqn: Any, arguments: list[Any]) -> Relevant:
        """A comparison, of which only the origin matters."""
        return self.curve(eqn, arguments) or self.lifted(bound(eqn, arguments))

    def total(self, eqn: Any, arguments: list[Any], origin: Carried | None = None) -> Layer:
        """A sum: each term counts as what it is."""
        operation, inputs = of_dependents(eqn, arguments)
        terms = [x.value * self.settled(x).share for x in inputs]
        value, terms = jax.jvp(operation, [x.value for x in inputs], terms)
        return summed(value, terms, origin)

    def added(self, eqn: Any, arguments: list[Any]) -> Any:
        """A bias belongs to the layer before it, if there is one; two branches are a sum."""
        first, second = arguments
        if is_carried(first) and is_carried(second):
            return self.curve(eqn, arguments) or self.total(eqn, arguments)
        x, bias = (first, second) if is_carried(first) else (second, first)
        subtracts = eqn.primitive.name == "sub"
        if not isinstance(x, Layer) or (subtracts and x is second):
            return self.total(eqn, arguments, origin=x)
        bias = -bias if subtracts else bias
        parts = [Part(p.weight, p.numerator, p.denominator + p.of_bias(bias), p.of_bias) for p in x.parts]
        return Layer(bound(eqn, arguments), tuple(parts), x.scalable, x)

    def scaled(self, eqn: Any, arguments: list[Any]) -> Any:
        """A factor belongs to the layer before it where that can be; it leaves shares as they are."""
        operation, inputs = of_dependents(eqn, arguments)
        x, value = inputs[0], bound(eqn, arguments)
        if len(inputs) == 2 or (x is not arguments[0] and eqn.primitive.name == "div"):
            return self.curve(eqn, arguments)
        if isinstance(x, Layer) and x.scalable:
            return x.replaced(value, operation, x)
        return Relevant(value, jnp.broadcast_to(self.settled(x).share, value.shape), x)

    def weighted(self, eqn: Any, arguments: list[Any]) -> Layer | None:
        """A layer with weights, by the rule."""
        first, second = arguments
        if is_carried(first) and is_carried(second):
            return None
        x, weights = (first, second) if is_carried(first) else (second, first)
        terms = x.value * self.settled(x).share

        def layer(weights, inputs):
            return bound(eqn, [inputs, weights] if x is first else [weights, inputs])

        value = layer(weights, x.value)
        if self.rule is None:
            return summed(value, layer(weights, terms))
        return Layer(value, self.rule(layer, weights, x.value, terms), False)

    def extreme(self, eqn: Any, arguments: list[Any]) -> Relevant:
        """The larger of two has the share, or the smaller."""
        curve = self.curve(eqn, arguments)
        if curve is not None:
            return curve
        first, second = map(self.settled, arguments)
        wins = first.value >= second.value if eqn.primitive.name == "max" else first.value <= second.value
        return Relevant(bound(eqn, arguments), jnp.where(wins, first.share, second.share))

    def selected(self, eqn: Any, arguments: list[Any]) -> Relevant:
        """One of two cases: that one has the share."""
        which, *cases = arguments
        curve = self.curve(eqn, arguments) if is_carried(which) else None
        if curve is not None:
            return curve
        return Relevant(bound(eqn, arguments), bound(eqn, [array(which), *(self.own(x).share for x in cases)]))


def common_origin(values: list[Carried]) -> Carried | None:
    """The nearest value of which all of these are functions, number by number; a single one is that itself."""
    first, *others = map(list, map(lineage, values))
    return next((x for x in first if all(any(x is y for y in other) for other in others)), None)


def lineage(value: Any) -> Iterator[Carried]:
    """A value, its origin, the origin of that, and so on."""
    while value is not None:
        yield value
        value = value.origin


RULES: dict[str, Callable[[Relevances, Any, list[Any]], Any]] = {
    **dict.fromkeys(MOVES - {"convert_element_type"}, Relevances.moved),
    **dict.fromkeys(("reduce_max", "reduce_min", "reduce_window_max", "reduce_window_min"), Relevances.moved),
    **dict.fromkeys(CURVES | CURVES_OF_ONE | {"convert_element_type"}, Relevances.curve),
    **dict.fromkeys(COMPARISONS | {"is_finite"}, Relevances.compared),
    **dict.fromkeys(("cumsum", "reduce_sum", "reduce_window_sum", "scatter-add"), Relevances.total),
    **dict.fromkeys(("add", "add_any", "sub"), Relevances.added),
    **dict.fromkeys(("div", "mul", "neg"), Relevances.scaled),
    **dict.fromkeys(("conv_general_dilated", "dot_general"), Relevances.weighted),
    **dict.fromkeys(("max", "min"), Relevances.extreme),
    "select_n": Relevances.selected,
    "stop_gradient": lambda _, __, arguments: arguments[0],
}
