"""Rules of layer-wise relevance propagation (LRP): an interpreter that computes shares of relevance with the values.

Shares are a linear function of shares given to the pixels, and the transpose of that function propagates relevance
from the output back to the pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import JaxprEqn

from jaxclf.saliency.methods import primitives
from jaxclf.saliency.methods.lrp_layer_rules import (
    Inputs,
    Layer,
    LayerRules,
    Part,
    Relevant,
    make_sum_layer,
    split_scope,
    transform_box,
)
from jaxclf.saliency.methods.primitives import Operands
from jaxclf.saliency.methods.roles import drop_weights, find_common_origin, infer_kind_and_role
from jaxclf.saliency.methods.softmax import Softmax
from jaxclf.types import Array
from jaxclf.xla.interpreter import Interpreter, Traced, bind, get_array, get_body, is_traced


class Relevances(Interpreter):
    """Evaluates a program together with the shares of its values."""

    def __init__(
        self, rules: LayerRules, epsilon: float, constant_attention: bool = False, residual_gamma: float = 0.0
    ):
        """Use `rules` for layers with weights, and `epsilon` to stabilize denominators.

        With `constant_attention` the softmax of attention is a constant weight, and `residual_gamma` is the extra
        weight of the branches of a sum that have the sign of the sum.
        """
        self.rules = rules
        self.epsilon = epsilon
        self.constant_attention = constant_attention
        self.residual_gamma = residual_gamma
        self.scope = ""

    def lift(self, value: Any) -> Relevant:
        """Return an array as a value without a share."""
        return Relevant(value, jnp.zeros_like(value))

    def lower(self, value: Traced) -> Any:
        """Compute the shares of a layer, to which no bias is added any more."""
        if not isinstance(value, Layer):
            return value
        shares = [part.weight * self._divide(part.numerator, part.denominator) for part in value.parts]
        share = jnp.broadcast_to(sum(shares), value.value.shape)
        return Relevant(value.value, share, value.box, origin=value.origin, kind=value.kind, role=value.role)

    def _divide(self, numerator: Array, denominator: Array) -> Array:
        away = denominator + self.epsilon * jnp.where(denominator < 0, -1, 1)
        # With epsilon = 0 a denominator can still be 0; the inner `where` keeps NaN out of the derivative too.
        return jnp.where(away == 0, 0, numerator / jnp.where(away == 0, 1, away))

    def _evaluate_equation(self, eqn: JaxprEqn, arguments: Operands) -> Any:
        # The names of modules around an equation; in a body they begin at the operation that has the body.
        scope = self.scope
        self.scope = f"{scope}/{eqn.source_info.name_stack}"
        outputs = super()._evaluate_equation(eqn, arguments)
        self.scope = scope
        return outputs

    def process_primitive(self, eqn: JaxprEqn, arguments: Operands) -> Any:
        """Apply the rule of a primitive; raise UserError if there is none."""
        name = eqn.primitive.name
        if name in primitives.CUSTOM_DERIVATIVES:
            return self.evaluate(get_body(eqn), arguments)
        if eqn.primitive.multiple_results:
            outputs = RULES[name](self, eqn, arguments) if name in RULES else None
        else:
            outputs = self._propagate_one(eqn, arguments)
        if outputs is None:
            raise primitives.make_missing_rule_error("Lrp", eqn, "DeepLift")
        return outputs

    def _propagate_one(self, eqn: JaxprEqn, arguments: Operands) -> Relevant | Layer | None:
        """An equation with one output, of which it is known what the output is to products."""
        name = eqn.primitive.name
        kind, role = infer_kind_and_role(eqn, arguments, self.constant_attention)
        if isinstance(kind, Softmax):
            output = self._propagate_softmax(bind(eqn, arguments), kind)
        else:
            output = RULES[name](self, eqn, arguments) if name in RULES else None
        if output is None:
            return None
        facts = {"kind": kind, "role": role, "box": transform_box(eqn, arguments)}
        unchanged = all(getattr(output, name) is fact for name, fact in facts.items())
        return output if unchanged else replace(output, **facts)

    def _propagate_rearrangement(self, eqn: JaxprEqn, arguments: Operands) -> Any:
        """Moved values, and maxima along axes: shares move with the values."""
        operation, inputs = primitives.bind_dependents(eqn, arguments)
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
        origin = find_common_origin([x for x in arguments if is_traced(x)])
        if origin is None:
            return None
        value, share = bind(eqn, arguments), self.lower(origin).share
        if jnp.issubdtype(value.dtype, jnp.floating):
            share = share.astype(value.dtype)
        return Relevant(value, jnp.broadcast_to(share, value.shape), origin=origin)

    def _propagate_conversion(self, eqn: JaxprEqn, arguments: Operands) -> Relevant | None:
        """A conversion of floats. Integers, such as indices, have no share."""
        integers = jnp.issubdtype(primitives.get_output(eqn).dtype, jnp.integer)
        return None if integers else self._propagate_unary(eqn, arguments)

    def _propagate_comparison(self, eqn: JaxprEqn, arguments: Operands) -> Relevant:
        """A comparison: its origin decides whether a selection by it is an elementwise function."""
        return self._propagate_unary(eqn, arguments) or self.lift(bind(eqn, arguments))

    def _propagate_sum(self, eqn: JaxprEqn, arguments: Operands, origin: Traced | None = None) -> Layer:
        """A sum, by the epsilon rule."""
        value, terms = self._sum_terms(eqn, arguments)
        return make_sum_layer(value, terms, origin)

    def _sum_terms(self, eqn: JaxprEqn, arguments: Operands) -> tuple[Array, Array]:
        """Return the value of a sum, and the sum of its terms times the shares of the values in them."""
        operation, inputs = primitives.bind_dependents(eqn, arguments)
        terms = [x.value * self.lower(x).share for x in inputs]
        return jax.jvp(operation, [x.value for x in inputs], terms)

    def _propagate_addition(self, eqn: JaxprEqn, arguments: Operands) -> Relevant | Layer:
        """A bias, which belongs to the layer before it, or the sum of two branches."""
        first, second = arguments
        if is_traced(first) and is_traced(second):
            return self._propagate_unary(eqn, arguments) or self._propagate_branches(eqn, arguments)
        x, bias = (first, second) if is_traced(first) else (second, first)
        subtracts = eqn.primitive.name == "sub"
        if not isinstance(x, Layer) or (subtracts and x is second):
            return self._propagate_sum(eqn, arguments, origin=x)
        bias = -bias if subtracts else bias
        parts = [Part(p.weight, p.numerator, p.denominator + p.bias_term(bias), p.bias_term) for p in x.parts]
        return Layer(bind(eqn, arguments), tuple(parts), x.scalable, origin=x)

    def _propagate_branches(self, eqn: JaxprEqn, arguments: Operands) -> Relevant | Layer:
        """The sum of two branches: by the epsilon rule, or with more weight for those that have the sign of the sum."""
        if self.residual_gamma == 0 or eqn.primitive.name == "sub":
            return self._propagate_sum(eqn, arguments)
        value = bind(eqn, arguments)
        first, second = map(self.lower, arguments)
        a, b = (x * (1 + self.residual_gamma * (jnp.sign(x) == jnp.sign(value))) for x in (first.value, second.value))
        return Relevant(value, self._divide(a * first.share + b * second.share, a + b))

    def _propagate_scaling(self, eqn: JaxprEqn, arguments: Operands) -> Relevant | Layer | None:
        """A constant factor: part of the layer before it if that is scalable; otherwise shares stay the same."""
        if all(map(is_traced, arguments)):
            return self._propagate_unary(eqn, arguments) or self._propagate_product(eqn, arguments)
        operation, inputs = primitives.bind_dependents(eqn, arguments)
        x, value = inputs[0], bind(eqn, arguments)
        if x is not arguments[0] and eqn.primitive.name == "div":
            return self._propagate_unary(eqn, arguments)
        if isinstance(x, Layer) and x.scalable:
            return x.transform(value, operation, x)
        return Relevant(value, jnp.broadcast_to(self.lower(x).share, value.shape), origin=x)

    def _propagate_product(self, eqn: JaxprEqn, arguments: Operands) -> Relevant | Layer | None:
        """A product or quotient of two values: a half for each factor, but nothing for weights and divisors."""
        first, second = arguments
        if eqn.primitive.name == "div":
            return self._propagate_scaling(eqn, [first, second.value])
        if (factors := drop_weights(arguments)) is not arguments:
            return self._propagate_scaling(eqn, factors)
        share = (self.lower(first).share + self.lower(second).share) / 2
        return Relevant(bind(eqn, arguments), share)

    def _propagate_layer(self, eqn: JaxprEqn, arguments: Operands) -> Relevant | Layer:
        """A dense or convolutional layer, by its rule, or such a product of two values."""
        first, second = arguments
        if is_traced(first) and is_traced(second):
            return self._propagate_mixture(eqn, arguments)
        x, weights = (first, second) if is_traced(first) else (second, first)
        share = self.lower(x).share
        inputs = Inputs(x.value, share, x.value * share, x.box)

        def layer(weights: Array, inputs: Array) -> Array:
            return bind(eqn, [inputs, weights] if x is first else [weights, inputs])

        value, rule = layer(weights, x.value), self.rules.select(split_scope(self.scope))
        if rule is None:
            return make_sum_layer(value, layer(weights, inputs.terms))
        return Layer(value, rule(layer, weights, inputs), False)

    def _propagate_mixture(self, eqn: JaxprEqn, arguments: Operands) -> Relevant | Layer:
        """A sum of products of two values, as in attention: as products and a sum by the epsilon rule."""
        factors = drop_weights(arguments)
        value, terms = self._sum_terms(eqn, factors)
        if factors is not arguments:
            return make_sum_layer(value, terms)
        return Relevant(value, self._divide(terms, 2 * value))

    def _propagate_softmax(self, value: Array, kind: Softmax) -> Relevant:
        """A softmax, by its expansion to first order at its inputs."""
        inputs = self.lower(kind.inputs)
        terms = jnp.where(jnp.isneginf(inputs.value), 0, inputs.value) * inputs.share
        share = (terms - (value * terms).sum(kind.axes, keepdims=True)).astype(value.dtype)
        return Relevant(value, share)

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


RULES: dict[str, Callable[[Relevances, JaxprEqn, Operands], Any]] = {
    **dict.fromkeys(primitives.REARRANGEMENTS - {"convert_element_type"}, Relevances._propagate_rearrangement),
    **dict.fromkeys(
        ("reduce_max", "reduce_min", "reduce_window_max", "reduce_window_min"), Relevances._propagate_rearrangement
    ),
    **dict.fromkeys(primitives.UNARY | primitives.UNARY_WITH_CONSTANTS, Relevances._propagate_unary),
    "convert_element_type": Relevances._propagate_conversion,
    **dict.fromkeys(primitives.COMPARISONS | {"is_finite"}, Relevances._propagate_comparison),
    **dict.fromkeys(("cumsum", "reduce_sum", "reduce_window_sum", "scatter-add"), Relevances._propagate_sum),
    **dict.fromkeys(("add", "add_any", "sub"), Relevances._propagate_addition),
    **dict.fromkeys(("div", "mul", "neg"), Relevances._propagate_scaling),
    **dict.fromkeys(("conv_general_dilated", "dot_general"), Relevances._propagate_layer),
    **dict.fromkeys(("max", "min"), Relevances._propagate_extremum),
    "select_n": Relevances._propagate_selection,
    "stop_gradient": lambda _, __, arguments: arguments[0],
}
"""The rule of each primitive. A rule returns None for operands that it does not handle."""
