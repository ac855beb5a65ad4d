"""Rules of layer-wise relevance propagation (LRP): an interpreter that computes shares of relevance with the values.

Shares are a linear function of shares given to the pixels, and the transpose of that function propagates relevance
from the output back to the pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import JaxprEqn

from jaxclf.errors import UserError
from jaxclf.saliency.methods.primitives import (
    COMPARISONS,
    CUSTOM_DERIVATIVES,
    REARRANGEMENTS,
    UNARY,
    UNARY_WITH_CONSTANTS,
    Operands,
    bind_dependents,
)
from jaxclf.types import Array
from jaxclf.xla.interpreter import Interpreter, Traced, bind, get_array, get_body, is_traced


@partial(jax.tree_util.register_dataclass, data_fields=("value", "share"), meta_fields=(), drop_fields=("origin",))
@dataclass(frozen=True, eq=False)
class Relevant(Traced):
    """A value at the image and its `share`, which is linear in the shares of the pixels.

    The transpose of that linear function maps relevance of the value to relevance of the pixels.
    """

    share: Any
    origin: Traced | None = None
    """The value of which this is an elementwise function."""


@dataclass(frozen=True, eq=False)
class Part:
    """One term of a layer's rule: `weight` times numerator / denominator is the share of the output."""

    weight: float
    numerator: Any
    denominator: Any
    bias_term: Callable[[Any], Any]
    """Maps a bias of the layer to what it adds to the denominator."""


@dataclass(frozen=True, eq=False)
class Layer(Traced):
    """The output of a layer before its shares are computed: a bias may be added to it yet."""

    parts: tuple[Part, ...]
    scalable: bool
    """True if a factor that follows, such as that of BatchNorm, belongs to the layer: the denominator is the value."""
    origin: Traced | None = None

    def transform(self, value: Array, linear: Callable[[Array], Array], origin: Traced | None = None) -> Layer:
        """Return the layer followed by a linear function, whose output is `value`."""
        parts = []
        for part in self.parts:
            numerator, denominator = jnp.broadcast_arrays(part.numerator, part.denominator)
            parts.append(Part(part.weight, linear(numerator), linear(denominator), part.bias_term))
        return Layer(value, tuple(parts), self.scalable, origin)


Linear = Callable[[Array, Array], Array]
"""A layer as a function of its weights and inputs."""
LayerRule = Callable[[Linear, Array, Array, Array], tuple[Part, ...]]
"""Maps a layer, its weights, its inputs, and the inputs times their shares to the parts of its rule."""


def _make_sum_layer(value: Array, terms: Array, origin: Traced | None = None) -> Layer:
    """Return a layer by the epsilon rule: each term of a sum has the share that it is of the sum."""
    return Layer(value, (Part(1.0, terms, value, lambda bias: bias),), True, origin)


class Relevances(Interpreter):
    """Evaluates a program together with the shares of its values."""

    def __init__(self, rule: LayerRule | None, epsilon: float):
        """Use `rule` for layers with weights (None: the epsilon rule), and `epsilon` to stabilize denominators."""
        self.rule = rule
        self.epsilon = epsilon

    def lift(self, value: Any) -> Relevant:
        """Return an array as a value without a share."""
        return Relevant(value, jnp.zeros_like(value))

    def lower(self, value: Traced) -> Any:
        """Compute the shares of a layer, to which no bias is added any more."""
        if not isinstance(value, Layer):
            return value
        shares = [part.weight * self._divide(part.numerator, part.denominator) for part in value.parts]
        return Relevant(value.value, jnp.broadcast_to(sum(shares), value.value.shape), value.origin)

    def _divide(self, numerator: Array, denominator: Array) -> Array:
        away = denominator + self.epsilon * jnp.where(denominator < 0, -1, 1)
        # With epsilon = 0 a denominator can still be 0; the inner `where` keeps NaN out of the derivative too.
        return jnp.where(away == 0, 0, numerator / jnp.where(away == 0, 1, away))

    def process_primitive(self, eqn: JaxprEqn, arguments: Operands) -> Any:
        """Apply the rule of a primitive; raise UserError if there is none."""
        name = eqn.primitive.name
        if name in CUSTOM_DERIVATIVES:
            return self.evaluate(get_body(eqn), arguments)
        outputs = RULES[name](self, eqn, arguments) if name in RULES else None
        if outputs is None:
            raise UserError(
                f"Lrp has no rule for {name!r}, which this model applies to values that depend on the image; "
                "use DeepLift instead"
            )
        return outputs

    def _propagate_rearrangement(self, eqn: JaxprEqn, arguments: Operands) -> Any:
        """Moved values, and maxima along axes: shares move with the values."""
        operation, inputs = bind_dependents(eqn, arguments)
        values = [x.value for x in inputs]
        if not all(jnp.issubdtype(x.dtype, jnp.floating) for x in values):
            return None
        if isinstance(inputs[0], Layer) and len(inputs) == 1 and not eqn.primitive.multiple_results:
            return inputs[0].transform(bind(eqn, arguments), lambda x: jax.jvp(operation, values, [x])[1])
        value, share = jax.jvp(operation, values, [self.lower(x).share for x in inputs])
        if eqn.primitive.multiple_results:
            return [Relevant(*output) for output in zip(value, share, strict=True)]
        return Relevant(value, share)

    def _propagate_unary(self, eqn: JaxprEqn, arguments: Operands) -> Relevant | None:
        """An elementwise function of one value, such as silu(x) = x * sigmoid(x): it has the share of that value."""
        origin = _find_common_origin([x for x in arguments if is_traced(x)])
        if origin is None:
            return None
        value, share = bind(eqn, arguments), self.lower(origin).share
        if jnp.issubdtype(value.dtype, jnp.floating):
            share = share.astype(value.dtype)
        return Relevant(value, jnp.broadcast_to(share, value.shape), origin)

    def _propagate_comparison(self, eqn: JaxprEqn, arguments: Operands) -> Relevant:
        """A comparison: its origin decides whether a selection by it is an elementwise function."""
        return self._propagate_unary(eqn, arguments) or self.lift(bind(eqn, arguments))

    def _propagate_sum(self, eqn: JaxprEqn, arguments: Operands, origin: Traced | None = None) -> Layer:
        """A sum, by the epsilon rule."""
        operation, inputs = bind_dependents(eqn, arguments)
        terms = [x.value * self.lower(x).share for x in inputs]
        value, terms = jax.jvp(operation, [x.value for x in inputs], terms)
        return _make_sum_layer(value, terms, origin)

    def _propagate_addition(self, eqn: JaxprEqn, arguments: Operands) -> Relevant | Layer:
        """A bias, which belongs to the layer before it, or the sum of two branches."""
        first, second = arguments
        if is_traced(first) and is_traced(second):
            return self._propagate_unary(eqn, arguments) or self._propagate_sum(eqn, arguments)
        x, bias = (first, second) if is_traced(first) else (second, first)
        subtracts = eqn.primitive.name == "sub"
        if not isinstance(x, Layer) or (subtracts and x is second):
            return self._propagate_sum(eqn, arguments, origin=x)
        bias = -bias if subtracts else bias
        parts = [Part(p.weight, p.numerator, p.denominator + p.bias_term(bias), p.bias_term) for p in x.parts]
        return Layer(bind(eqn, arguments), tuple(parts), x.scalable, x)

    def _propagate_scaling(self, eqn: JaxprEqn, arguments: Operands) -> Relevant | Layer | None:
        """A constant factor: part of the layer before it if that is scalable; otherwise shares stay the same."""
        operation, inputs = bind_dependents(eqn, arguments)
        x, value = inputs[0], bind(eqn, arguments)
        if len(inputs) == 2 or (x is not arguments[0] and eqn.primitive.name == "div"):
            return self._propagate_unary(eqn, arguments)
        if isinstance(x, Layer) and x.scalable:
            return x.transform(value, operation, x)
        return Relevant(value, jnp.broadcast_to(self.lower(x).share, value.shape), x)

    def _propagate_layer(self, eqn: JaxprEqn, arguments: Operands) -> Layer | None:
        """A dense or convolutional layer, by the rule."""
        first, second = arguments
        if is_traced(first) and is_traced(second):
            return None
        x, weights = (first, second) if is_traced(first) else (second, first)
        terms = x.value * self.lower(x).share

        def layer(weights: Array, inputs: Array) -> Array:
            return bind(eqn, [inputs, weights] if x is first else [weights, inputs])

        value = layer(weights, x.value)
        if self.rule is None:
            return _make_sum_layer(value, layer(weights, terms))
        return Layer(value, self.rule(layer, weights, x.value, terms), False)

    def _propagate_extremum(self, eqn: JaxprEqn, arguments: Operands) -> Relevant:
        """An elementwise maximum or minimum: the winner has the share, of equal operands the first."""
        unary = self._propagate_unary(eqn, arguments)
        if unary is not None:
            return unary
        first, second = map(self.lower, arguments)
        wins = first.value >= second.value if eqn.primitive.name == "max" else first.value <= second.value
        return Relevant(bind(eqn, arguments), jnp.where(wins, first.share, second.share))

    def _propagate_selection(self, eqn: JaxprEqn, arguments: Operands) -> Relevant:
        """A selection between two cases: the selected case has the share."""
        which, *cases = arguments
        unary = self._propagate_unary(eqn, arguments) if is_traced(which) else None
        if unary is not None:
            return unary
        return Relevant(bind(eqn, arguments), bind(eqn, [get_array(which), *(self.convert(x).share for x in cases)]))


def _find_common_origin(values: list[Any]) -> Any:
    """Return the nearest value of which all values are elementwise functions, or None; of one value, that value."""
    first, *others = map(list, map(_walk_origins, values))
    return next((x for x in first if all(any(x is y for y in other) for other in others)), None)


def _walk_origins(value: Any) -> Iterator[Any]:
    """Yield a value, its origin, the origin of that, and so on."""
    while value is not None:
        yield value
        value = value.origin


RULES: dict[str, Callable[[Relevances, JaxprEqn, Operands], Any]] = {
    **dict.fromkeys(REARRANGEMENTS - {"convert_element_type"}, Relevances._propagate_rearrangement),
    **dict.fromkeys(
        ("reduce_max", "reduce_min", "reduce_window_max", "reduce_window_min"), Relevances._propagate_rearrangement
    ),
    **dict.fromkeys(UNARY | UNARY_WITH_CONSTANTS | {"convert_element_type"}, Relevances._propagate_unary),
    **dict.fromkeys(COMPARISONS | {"is_finite"}, Relevances._propagate_comparison),
    **dict.fromkeys(("cumsum", "reduce_sum", "reduce_window_sum", "scatter-add"), Relevances._propagate_sum),
    **dict.fromkeys(("add", "add_any", "sub"), Relevances._propagate_addition),
    **dict.fromkeys(("div", "mul", "neg"), Relevances._propagate_scaling),
    **dict.fromkeys(("conv_general_dilated", "dot_general"), Relevances._propagate_layer),
    **dict.fromkeys(("max", "min"), Relevances._propagate_extremum),
    "select_n": Relevances._propagate_selection,
    "stop_gradient": lambda _, __, arguments: arguments[0],
}
"""The rule of each primitive. A rule returns None for operands that it does not handle."""
