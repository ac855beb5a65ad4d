"""Products of arrays with several axes, computed as products of two matrices.

XLA's CPU backend transposes an operand whose summed axes are several and come first, such as the tokens [b, n, c] of a
weight gradient, by a copy into which it fuses all elementwise operations before it. It transposes no matrices.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from jax.extend.core import JaxprEqn

from jaxclf.types import Array
from jaxclf.xla.interpreter import bind


def multiply_matrices(eqn: JaxprEqn, x: Array, y: Array) -> Array:
    """Return the output of a `dot_general`, by a product of two matrices if it can be one."""
    (x_summed, y_summed), (x_batch, _) = eqn.params["dimension_numbers"]
    # The axes of one operand in their order, and those of the other that they belong to.
    pairs = sorted(zip(x_summed, y_summed, strict=True))
    axes = [[axis for axis, _ in pairs], [axis for _, axis in pairs]]
    sides = tuple(_find_side(operand.ndim, summed) for operand, summed in zip((x, y), axes, strict=True))
    if x_batch or max(x.ndim, y.ndim) == 2 or None in sides:
        return bind(eqn, [x, y])
    n = prod(x.shape[axis] for axis in x_summed)
    matrices = [operand.reshape((n, -1) if side == 0 else (-1, n)) for operand, side in zip((x, y), sides, strict=True)]
    numbers = ((sides[:1], sides[1:]), ((), ()))
    product = eqn.primitive.bind(*matrices, **eqn.params | {"dimension_numbers": numbers})
    output: Any = eqn.outvars[0].aval
    return product.reshape(output.shape)


def _find_side(rank: int, summed: Sequence[int]) -> int | None:
    """Return the axis of a matrix that the summed axes of an array become: 0, 1, or None if it is neither."""
    if list(summed) == list(range(len(summed))):
        return 0
    return 1 if list(summed) == list(range(rank - len(summed), rank)) else None
