"""Split of a model into the part that is affine in the image, which a method computes once, and the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import prod
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend.core import ClosedJaxpr, JaxprEqn, Literal, Var
from jaxtyping import Float

from jaxclf.saliency.methods.primitives import PRODUCTS, REARRANGEMENTS, SUMS, get_output
from jaxclf.types import Array, Logits
from jaxclf.xla.interpreter import INLINED, Interpreter, Value, bind

Frontier = tuple[Array, ...]
"""Arrays between the two parts of a model."""
ADDITIVE = (REARRANGEMENTS - {"convert_element_type", "reduce_precision"}) | SUMS | {"select_n"}
"""Primitives that are affine in all their floating-point operands together; what selects or indexes is no float."""
MIN_WORK = 32
"""Multiplications for each element of a frontier from which on it is worth to carry it (docs/log.md)."""


@dataclass(frozen=True)
class AffineSplit:
    """A model as `rest(prefix(images))`, where `prefix` is affine in the images.

    So on a straight line the values of the frontier move on a straight line too, and a sum of gradients with respect to
    them is pulled back to the pixels by one transpose of `prefix`.
    """

    prefix: Callable[[Float[Array, "b ..."]], Frontier]
    rest: Callable[[Frontier], Logits]


def split_affine(function: Callable[[Array], Logits], images: Float[Array, "b ..."]) -> AffineSplit:
    """Split a function after its last matrix products and convolutions that are affine in the images.

    What is affine but costs little, such as a bias or the scale of a batch normalization, stays in the rest, where XLA
    computes it together with what follows. A product is split off only if the prefix has at least `MIN_WORK`
    multiplications for each of its outputs: a method moves these outputs instead of the pixels.

    Args:
        function: Maps images [b, ...] to logits [b, classes]; as written, or with its gradients rewritten.
        images: Images of the shape and dtype at which it is traced.

    Returns:
        The two parts. If there is nothing to split off, the prefix is the identity.
    """
    program = jax.make_jaxpr(partial(_Flattener().run, function))(images)
    frontier = _find_frontier(program)
    prefix = _make_function(program, program.jaxpr.invars, frontier)
    rest = _make_function(program, frontier, program.jaxpr.outvars, keep_effects=True)
    return AffineSplit(lambda images: prefix([images]), lambda values: rest(values)[0])


class _Flattener(Interpreter):
    """Evaluates a program without the calls in it."""

    def handles(self, eqn: JaxprEqn, arguments: list[Value]) -> bool:
        """Return True for calls, whose bodies the interpreter evaluates."""
        return eqn.primitive.name in INLINED

    def process_primitive(self, eqn: JaxprEqn, arguments: list[Value]) -> Any:
        """Return the outputs of an equation as it is."""
        return bind(eqn, arguments)


@dataclass(frozen=True)
class _Affine:
    """What is known of a value that is affine in the images."""

    sources: dict[Var, None]
    """The images or outputs of products from which it is computed with little work."""
    work: int
    """Multiplications that it takes from the images on."""


@dataclass(frozen=True)
class _Search:
    """A walk through a program that finds the values at which what is affine in the images ends."""

    affine: dict[Var, _Affine]
    curved: set[Var] = field(default_factory=set)
    """Values that depend on the images and are not affine in them."""
    frontier: dict[Var, None] = field(default_factory=dict)

    def visit(self, eqn: JaxprEqn) -> None:
        """Classify the outputs of an equation."""
        dependent = [x for x in eqn.invars if isinstance(x, Var) and (x in self.affine or x in self.curved)]
        if not dependent:
            return
        if self.curved.isdisjoint(dependent) and _is_affine(eqn, dependent):
            self.affine.update(dict.fromkeys(eqn.outvars, self._describe(eqn, dependent)))
        else:
            self.curved.update(eqn.outvars)
            self.end_at(dependent)

    def end_at(self, values: Iterable[Any]) -> None:
        """Add the sources of values, where these are affine, to the frontier."""
        for value in values:
            if isinstance(value, Var) and value in self.affine:
                self.frontier.update(self.affine[value].sources)

    def _describe(self, eqn: JaxprEqn, dependent: Sequence[Var]) -> _Affine:
        inputs = [self.affine[x] for x in dict.fromkeys(dependent)]
        output = get_output(eqn)
        work = sum(x.work for x in inputs) + _count_multiplications(eqn)
        if eqn.primitive.name in PRODUCTS - {"mul"} and output.ndim and work >= MIN_WORK * output.size:
            return _Affine({eqn.outvars[0]: None}, work)
        return _Affine({source: None for x in inputs for source in x.sources}, work)


def _find_frontier(program: ClosedJaxpr) -> list[Var]:
    (images,) = program.jaxpr.invars
    search = _Search({images: _Affine({images: None}, 0)})
    for eqn in program.jaxpr.eqns:
        search.visit(eqn)
    search.end_at(program.jaxpr.outvars)
    return list(search.frontier) or [images]


def _is_affine(eqn: JaxprEqn, dependent: Sequence[Var]) -> bool:
    """Return True if an equation is affine in some of its operands together."""
    name = eqn.primitive.name
    if eqn.effects:
        return False
    if name == "convert_element_type":
        return _is_exact(_get_shape(dependent[0]).dtype, eqn.params["new_dtype"])
    if name in PRODUCTS:
        return len(dependent) == 1
    return name in ADDITIVE or (name == "div" and len(dependent) == 1 and eqn.invars[0] is dependent[0])


def _is_exact(before: Any, after: Any) -> bool:
    """Return True if a conversion of floats does not round."""
    return jnp.issubdtype(after, jnp.floating) and jnp.promote_types(before, after) == after


def _count_multiplications(eqn: JaxprEqn) -> int:
    """Return the multiplications of a matrix product or a convolution, and 0 for other equations."""
    shapes = [_get_shape(x).shape for x in eqn.invars]
    size = get_output(eqn).size
    if eqn.primitive.name == "dot_general":
        return size * prod(shapes[0][axis] for axis in eqn.params["dimension_numbers"][0][0])
    if eqn.primitive.name == "conv_general_dilated":
        return size * prod(shapes[1]) // shapes[1][eqn.params["dimension_numbers"].rhs_spec[0]]
    return 0


def _get_shape(value: Var | Literal) -> ShapedArray:
    return cast(ShapedArray, value.aval)


def _make_function(
    program: ClosedJaxpr, inputs: Sequence[Var], outputs: Sequence[Any], keep_effects: bool = False
) -> Callable[[Sequence], tuple]:
    """Return a part of a program as a function of some of its values."""
    constants = dict(zip(program.jaxpr.constvars, program.consts, strict=True))
    eqns = _select_equations(program.jaxpr.eqns, inputs, outputs, keep_effects)

    def run(arguments: Sequence[Any]) -> tuple:
        values = constants | dict(zip(inputs, arguments, strict=True))

        def read(atom: Any) -> Any:
            return atom.val if isinstance(atom, Literal) else values[atom]

        for eqn in eqns:
            results = bind(eqn, [read(x) for x in eqn.invars])
            values |= zip(eqn.outvars, results if eqn.primitive.multiple_results else [results], strict=True)
        return tuple(map(read, outputs))

    return run


def _select_equations(
    eqns: Sequence[JaxprEqn], inputs: Sequence[Var], outputs: Sequence[Any], keep_effects: bool
) -> list[JaxprEqn]:
    """Return the equations that compute some outputs from some inputs, and those with effects, such as callbacks."""
    needed = {x for x in outputs if isinstance(x, Var)} - set(inputs)
    selected = []
    for eqn in reversed(eqns):
        if not needed.isdisjoint(eqn.outvars) or (keep_effects and eqn.effects):
            selected.append(eqn)
            needed |= {x for x in eqn.invars if isinstance(x, Var)} - set(inputs)
    return selected[::-1]
