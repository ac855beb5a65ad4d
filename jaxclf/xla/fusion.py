"""Find what XLA's CPU backend would compute several times, and compute it once.

XLA fuses elementwise operations into each kernel that reads their result, so several kernels compute it again. For a
depthwise convolution, which is a sum of products, this takes longer than writing the result to memory.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Jaxpr, Literal, Var

from jaxclf.types import Array

KERNELS = (
    "argmax", "argmin", "cond", "conv_general_dilated", "cumsum", "dot_general", "gather", "reduce", "scan", "scatter",
    "sort", "while",
)  # fmt: skip
"""Beginnings of the names of operations that are not fused into what reads them."""


def find_recomputed(jaxpr: Jaxpr) -> set[Var]:
    """Return the variables of a program that more than one kernel reads, directly or through fused operations."""
    readers: defaultdict[Var, set[int]] = defaultdict(set)
    for atom in jaxpr.outvars:
        if not isinstance(atom, Literal):
            readers[atom].add(-1)
    for number, eqn in reversed(list(enumerate(jaxpr.eqns))):
        is_kernel = eqn.primitive.name.startswith(KERNELS)
        kernels = {number} if is_kernel else set().union(*(readers[variable] for variable in eqn.outvars))
        for atom in eqn.invars:
            if not isinstance(atom, Literal) and len(readers[atom]) < 2:
                readers[atom] |= kernels
    return {variable for variable, kernels in readers.items() if len(kernels) > 1}


def compute_once(function: Callable[..., Array], *arguments: Array) -> Array:
    """Return the output of a function, written to memory and not fused into what reads it."""
    # XLA removes barriers before it fuses operations, but it fuses nothing across a condition. It simplifies conditions
    # before it removes barriers, so it does not find out that this one is always true.
    output = jax.eval_shape(function, *arguments)
    make_zeros = lambda *_: jnp.zeros(output.shape, output.dtype)  # noqa: E731
    return lax.cond(lax.optimization_barrier(True), function, make_zeros, *arguments)
