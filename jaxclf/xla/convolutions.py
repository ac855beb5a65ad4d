"""Programs with convolutions, written and compiled so that XLA's CPU backend runs them fast (docs/log.md)."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from functools import cache, partial, reduce
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float

from jaxclf.types import Array
from jaxclf.xla.interpreter import Interpreter, bound, mentions

CONVOLUTION, PRODUCT = "conv_general_dilated", "dot_general"
PARTS = 4
"""In how many parts the examples of a weight gradient are added up."""
THIN = 4
"""Most channels of images that are convolved block by block."""
YNN_OFF = {"xla_cpu_experimental_ynn_fusion_type": ""}
ONEDNN = {"xla_cpu_experimental_onednn_custom_call": True}


def fast_convolutions(function: Callable) -> Callable:
    """The same function, its convolutions written as XLA's CPU backend runs them fast; on others as it is."""
    return partial(FastConvolutions().run, function)


class FastConvolutions(Interpreter):
    """Rewrites the convolutions of a program, once it is differentiated; `run` once, then `compiler_options` is known.

    The backend brings convolutions into the order its library knows, [b, ..., c] and [..., c, features], but only
    those of the outermost program; inside a loop the others become plain nested loops, ten times slower (jax #12868).
    So all are written in that order, behind barriers: XLA would fold the transpositions back in. Weight gradients
    are added up from parts of the batch, and images of few channels convolved in blocks of 2 x 2 places.
    Convolutions in bodies that cannot be entered stay as they are.
    """

    def __init__(self):
        self.needed = False
        self.found = False
        self.hidden = False

    def run(self, function: Callable, *arguments: Any) -> Any:
        """What a function gives, on a CPU by convolutions written anew."""
        return super().run(function, *arguments) if jax.default_backend() == "cpu" else function(*arguments)

    def evaluate(self, jaxpr: Any, arguments: list[Any]) -> list[Any]:
        """The outputs of a closed jaxpr; the first is the whole program, and shows if there is anything to do."""
        self.needed = self.needed or any(mentions(eqn, CONVOLUTION) for eqn in jaxpr.jaxpr.eqns)
        return super().evaluate(jaxpr, arguments)

    def concerns(self, eqn: Any, arguments: list[Any]) -> bool:
        """Convolutions and, because oneDNN takes these too, the matrix products beside them."""
        return self.needed and (mentions(eqn, CONVOLUTION) or mentions(eqn, PRODUCT))

    def operation(self, eqn: Any, arguments: list[Any]) -> Any:
        """A convolution or a product, with nothing to be fused to it: see `compiler_options`."""
        name = eqn.primitive.name
        if name == CONVOLUTION:
            self.found = True
            return _convolution(eqn, arguments)
        if name == "while":
            return self._while(eqn.params, arguments)
        outputs = bound(eqn, arguments)
        if name == PRODUCT:
            return lax.optimization_barrier(outputs) if onednn_helps() else outputs
        self.hidden = True
        return outputs

    def _while(self, params: dict[str, Any], arguments: list[Any]) -> list[Any]:
        first, last = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]

        def goes_on(carry):
            return self.evaluate(params["cond_jaxpr"], [*arguments[:first], *carry])[0]

        def turn(carry):
            return self.evaluate(params["body_jaxpr"], [*arguments[first:last], *carry])

        return jax.lax.while_loop(goes_on, turn, arguments[last:])

    @property
    def compiler_options(self) -> dict[str, Any] | None:
        """XLA's options for the program; None without convolutions, none against flags of the user's own.

        With oneDNN jax 0.12 miscompiles x * sigmoid(x) behind a convolution or a product (gradients are wrong by a
        third of the largest): it fuses them. So there are barriers between, and no oneDNN where one is out of reach.
        """
        if not self.found:
            return None
        options = YNN_OFF | (ONEDNN if onednn_helps() and not self.hidden else {})
        flags = os.environ.get("XLA_FLAGS", "")
        return options if known(tuple(options.items())) and not any(name in flags for name in options) else None


@cache
def known(options: tuple[tuple[str, Any], ...]) -> bool:
    """Whether this XLA has the options, which are experimental."""
    try:
        jax.jit(lambda x: x, compiler_options=dict(options)).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True


def onednn_helps() -> bool:
    """Whether oneDNN's convolutions were measured to be faster: twice with jax 0.12, as fast with 0.10."""
    return jax.__version_info__ >= (0, 12) and platform.machine() in ("x86_64", "AMD64")


def _convolution(eqn: Any, arguments: list[Any]) -> Any:
    """A convolution of any order in the plain one: images [b, ..., c], kernel [..., c, features]."""
    numbers = eqn.params["dimension_numbers"]
    (b, c, *space), (features, into, *window) = numbers.lhs_spec, numbers.rhs_spec
    (out_b, out_c, *out_space) = numbers.out_spec
    orders = (b, *space, c), (*window, into, features)
    images, kernel = arguments
    shape = eqn.outvars[0].aval.shape
    if _is_weight_gradient(eqn, kernel, [shape[axis] for axis in out_space]):
        # Rows of every part lie on every device, so that none have to move.
        pairs = zip(_parts(images, c), _parts(kernel, into), strict=True)
        outputs = reduce(jnp.add, (_in_order(eqn, *_ordered(pair, orders)) for pair in pairs))
    else:
        images, kernel = _ordered((images, kernel), orders)
        suits = _suits_blocks(eqn, images, kernel, shape, out_space)
        outputs = _in_blocks(eqn, images, kernel) if suits else _in_order(eqn, images, kernel)
    return outputs.transpose(np.argsort((out_b, *out_space, out_c)).tolist())


def _ordered(operands: Any, orders: tuple[tuple[int, ...], ...]) -> tuple[Any, ...]:
    plain = tuple(range(len(orders[0])))
    return tuple(
        x if order == plain else lax.optimization_barrier(x.transpose(order))
        for x, order in zip(operands, orders, strict=True)
    )


def _in_order(eqn: Any, images: Any, kernel: Any, **changes: Any) -> Any:
    """The convolution of ordered operands, with a barrier behind it."""
    rank = images.ndim
    axes = tuple(range(1, rank - 1))
    numbers = lax.ConvDimensionNumbers(
        (0, rank - 1, *axes), (rank - 1, rank - 2, *range(rank - 2)), (0, rank - 1, *axes)
    )
    params = eqn.params | {"dimension_numbers": numbers} | changes
    return lax.optimization_barrier(eqn.primitive.bind(images, kernel, **params))


def _is_weight_gradient(eqn: Any, kernel: Any, out_space: list[int]) -> bool:
    """Whether the window is larger than what comes out, and what is summed over is a batch that has parts."""
    (_, into, *window) = eqn.params["dimension_numbers"].rhs_spec
    ungrouped = eqn.params["feature_group_count"] == eqn.params["batch_group_count"] == 1
    larger = prod(kernel.shape[axis] for axis in window) > prod(out_space)
    return ungrouped and larger and kernel.shape[into] % PARTS == 0


def _parts(x: Any, axis: int) -> list[Any]:
    """Every PARTS-th row along an axis, from the first, the second and so on."""
    split = x.reshape(*x.shape[:axis], x.shape[axis] // PARTS, PARTS, *x.shape[axis + 1 :])
    return [lax.index_in_dim(split, i, axis + 1, keepdims=False) for i in range(PARTS)]


def _suits_blocks(eqn: Any, images: Any, kernel: Any, shape: tuple[int, ...], out_space: list[int]) -> bool:
    """Whether images have few channels, the kernel more, and places that are all kept divide into blocks of 2 x 2."""
    params, ones = eqn.params, (1,) * len(out_space)
    plain = params["window_strides"] == params["lhs_dilation"] == params["rhs_dilation"] == ones
    ungrouped = params["feature_group_count"] == params["batch_group_count"] == 1
    thin = len(out_space) == 2 and images.shape[-1] <= THIN < kernel.shape[-1]
    fits = all(shape[axis] % 2 == 0 for axis in out_space) and min(kernel.shape[:2]) > 1
    return plain and ungrouped and thin and fits and min(map(min, params["padding"])) >= 0 and not onednn_helps()


def _in_blocks(eqn: Any, images: Any, kernel: Any) -> Any:
    """A convolution whose inputs and outputs are blocks of 2 x 2 places, which makes four times as many channels.

    A window of k places is one of m blocks, at two offsets in them; where it is not, weights are 0.
    """
    (height, width, c, features), padding = kernel.shape, eqn.params["padding"]
    m = height // 2 + 1, width // 2 + 1
    (top, bottom), (left, right) = padding
    bottom, right = bottom + 2 * m[0] - height - 1, right + 2 * m[1] - width - 1
    padded = jnp.pad(images, ((0, 0), (top, bottom), (left, right), (0, 0)))
    offsets = [
        jnp.pad(kernel, ((i, 2 * m[0] - height - i), (j, 2 * m[1] - width - j), (0, 0), (0, 0)))
        for i in (0, 1)
        for j in (0, 1)
    ]
    weights = jnp.stack(offsets, axis=3).reshape(m[0], 2, m[1], 2, c, 4 * features)
    weights = weights.transpose(0, 2, 1, 3, 4, 5).reshape(*m, 4 * c, 4 * features)
    outputs = _in_order(
        eqn, *map(lax.optimization_barrier, (stack_blocks(padded, 2), weights)), padding=((0, 0), (0, 0))
    )
    b, rows, columns, _ = outputs.shape
    apart = outputs.reshape(b, rows, columns, 2, 2, features).transpose(0, 1, 3, 2, 4, 5)
    return apart.reshape(b, 2 * rows, 2 * columns, features)


def stack_blocks(x: Float[Array, "b h w c"], side: int) -> Float[Array, "b h2 w2 c2"]:
    """Squares of `side` x `side` places as one place with side² as many channels; a rest at the edge is left out."""
    b, h, w, c = x.shape
    rows, columns = h // side, w // side
    squares = x[:, : rows * side, : columns * side].reshape(b, rows, side, columns, side, c)
    return squares.transpose(0, 1, 3, 2, 4, 5).reshape(b, rows, columns, side * side * c)
