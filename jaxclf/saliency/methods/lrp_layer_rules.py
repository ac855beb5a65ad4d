"""Layers of layer-wise relevance propagation (LRP): their values, their rules, and rules by the name of a layer."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import JaxprEqn

from jaxclf.errors import UserError, require
from jaxclf.saliency.methods.primitives import REARRANGEMENTS, Operands, bind_dependents
from jaxclf.saliency.methods.roles import Carried
from jaxclf.types import Array
from jaxclf.xla.interpreter import Traced, is_traced


@dataclass(frozen=True, eq=False)
class Box:
    """The bounds of values that are scaled and shifted pixels, and the shares of these pixels."""

    low: Array
    high: Array
    share: Array

    def transform(self, move: Callable[[Array], Array], affine: bool) -> Box:
        """Return the box after an increasing or decreasing `affine` function, or else after a rearrangement."""
        low, high = move(self.low), move(self.high)
        if not affine:
            return Box(low, high, move(self.share))
        return Box(jnp.minimum(low, high), jnp.maximum(low, high), jnp.broadcast_to(self.share, low.shape))


@dataclass(frozen=True, eq=False)
class Part:
    """One term of a layer's rule: `weight` times numerator / denominator is the share of the output."""

    weight: float
    numerator: Any
    denominator: Any
    bias_term: Callable[[Any], Any]
    """Maps a bias of the layer to what it adds to the denominator."""


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("value", "share"),
    meta_fields=(),
    drop_fields=("origin", "kind", "role", "box"),
)
@dataclass(frozen=True, eq=False)
class Relevant(Carried):
    """A value at the image and its `share`, which is linear in the shares of the pixels.

    The transpose of that linear function maps relevance of the value to relevance of the pixels.
    """

    share: Any
    box: Box | None = None
    """For a rule that needs them: bounds of the value."""


@dataclass(frozen=True, eq=False)
class Layer(Carried):
    """The output of a layer before its shares are computed: a bias may be added to it yet."""

    parts: tuple[Part, ...]
    scalable: bool
    """True if a factor that follows, such as that of BatchNorm, belongs to the layer: the denominator is the value."""
    box: Box | None = None
    """For a rule that needs them: bounds of the value."""

    def transform(self, value: Array, linear: Callable[[Array], Array], origin: Traced | None = None) -> Layer:
        """Return the layer followed by a linear function, whose output is `value`."""
        parts = []
        for part in self.parts:
            numerator, denominator = jnp.broadcast_arrays(part.numerator, part.denominator)
            parts.append(Part(part.weight, linear(numerator), linear(denominator), part.bias_term))
        return Layer(value, tuple(parts), self.scalable, origin=origin)


def make_sum_layer(value: Array, terms: Array, origin: Traced | None = None) -> Layer:
    """Return a layer by the epsilon rule: each term of a sum has the share that it is of the sum."""
    return Layer(value, (Part(1.0, terms, value, lambda bias: bias),), True, origin=origin)


def transform_box(eqn: JaxprEqn, arguments: Operands) -> Box | None:
    """Return the bounds of the output of a rearrangement, or of an affine function of one value."""
    operation, inputs = bind_dependents(eqn, arguments)
    name, box = eqn.primitive.name, inputs[0].box
    if box is None or len(inputs) > 1:
        return None
    if name in REARRANGEMENTS:
        return box.transform(operation, affine=False)
    affine = name in ("add", "mul", "neg", "sub") or (name == "div" and is_traced(arguments[0]))
    return box.transform(operation, affine=True) if affine else None


@dataclass(frozen=True, eq=False)
class Inputs:
    """The inputs of a layer."""

    value: Array
    share: Array
    terms: Array
    """The values times their shares."""
    box: Box | None


Linear = Callable[[Array, Array], Array]
"""A layer as a function of its weights and inputs."""
LayerRule = Callable[[Linear, Array, Inputs], tuple[Part, ...]]
"""Maps a layer, its weights and its inputs to the parts of its rule."""


def apply_gamma_rule(gamma: float, layer: Linear, weights: Array, inputs: Inputs) -> tuple[Part, ...]:
    """Apply the gamma rule: weights w become w + gamma * max(w, 0)."""

    def emphasize(x):
        return x + gamma * jax.nn.relu(x)

    return (Part(1.0, layer(emphasize(weights), inputs.terms), layer(emphasize(weights), inputs.value), emphasize),)


def apply_alpha_beta_rule(alpha: float, beta: float, layer: Linear, weights: Array, inputs: Inputs) -> tuple[Part, ...]:
    """Apply the alpha-beta rule: positive products of inputs and weights separately from negative ones."""

    def split(x):
        return jnp.where(inputs.value > 0, x, 0), jnp.where(inputs.value < 0, x, 0)

    def make_part(weight, first, second, bias_term):
        numerator, denominator = (
            layer(first, above) + layer(second, below) for above, below in (split(inputs.terms), split(inputs.value))
        )
        return Part(weight, numerator, denominator, bias_term)

    above, below = jnp.maximum(weights, 0), jnp.minimum(weights, 0)
    parts = (
        make_part(alpha, above, below, lambda bias: jnp.maximum(bias, 0)),
        make_part(-beta, below, above, lambda bias: jnp.minimum(bias, 0)),
    )
    return parts if beta else parts[:1]


def apply_box_rule(layer: Linear, weights: Array, inputs: Inputs) -> tuple[Part, ...]:
    """Apply the z-box rule: the products x w, minus the least that they can be for pixels within their bounds."""
    if inputs.box is None:
        raise UserError(
            'the rule "z_box" is for a layer of pixels, whose bounds are known; choose another rule for later layers, '
            'such as Lrp(rules={"conv1": "z_box"})'
        )
    box, above, below = inputs.box, jnp.maximum(weights, 0), jnp.minimum(weights, 0)

    def reduce_least(share):
        return layer(above, box.low * share) + layer(below, box.high * share)

    numerator = layer(weights, inputs.value * box.share) - reduce_least(box.share)
    return (
        Part(1.0, numerator, layer(weights, inputs.value) - reduce_least(jnp.ones_like(box.share)), jnp.zeros_like),
    )


def apply_uniform_rule(
    modify: Callable[[Array], Array], layer: Linear, weights: Array, inputs: Inputs
) -> tuple[Part, ...]:
    """Apply the w-squared or flat rule: in proportion to the modified weights, whatever the inputs."""
    weights = modify(weights)
    return (Part(1.0, layer(weights, inputs.share), layer(weights, jnp.ones_like(inputs.value)), jnp.zeros_like),)


def split_scope(scope: str) -> list[str]:
    """Split the names of modules around an operation, as Flax and others give them, without those of their methods."""
    names: list[str] = []
    for part in filter(None, re.sub(r"vmap\(([^()]*)\)", r"\1", scope).split("/")):  # of vmap(conv1) the name is conv1
        name, _, method = part.partition(".")
        if not method or names[-1:] != [name]:
            names.append(name)
    return names


class LayerRules:
    """The rules of a network's layers: by name for some, and one for the others. None is the epsilon rule."""

    def __init__(self, others: LayerRule | None, named: dict[str, LayerRule | None]):
        """Use the first of the rules `named` by a pattern that fits the layer or a module around it."""
        self.others = others
        self.named = named
        self.found: dict[str, None] = {}
        self.used: set[str] = set()

    def select(self, path: Sequence[str]) -> LayerRule | None:
        """Return the rule of the layer at a path such as ("Vit", "block1", "mlp", "dense1")."""
        self.found["/".join(path[1:] or path)] = None  # the first name is usually that of the model
        modules = ["/".join(path[start:end]) for start in (0, 1) for end in range(start + 1, len(path) + 1)]
        fitting = [pattern for pattern in self.named if any(fnmatchcase(module, pattern) for module in modules)]
        self.used.update(fitting)
        return self.named[fitting[0]] if fitting else self.others

    def require_used(self) -> None:
        """Raise UserError if a pattern fits no layer of the model."""
        layers = [path for path in self.found if path]
        for pattern in self.named:
            if pattern in self.used:
                continue
            require(len(layers) > 0, f"rules: {pattern!r} fits no layer, because this model gives its layers no names")
            near = get_close_matches(pattern, layers, n=3, cutoff=0.0)
            raise UserError(f"rules: {pattern!r} fits no layer with weights; the nearest are {', '.join(near)}")
