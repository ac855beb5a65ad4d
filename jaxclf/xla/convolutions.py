"""Convolutions rewritten so that XLA's CPU backend runs them fast. Measurements are in docs/log.md."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, reduce
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, JaxprEqn, Var

from jaxclf.types import Array
from jaxclf.xla.decompositions import MAX_THIN_CHANNELS, find_decomposition, is_ungrouped
from jaxclf.xla.fusion import compute_once, find_recomputed
from jaxclf.xla.interpreter import CHECKPOINTS, Interpreter, Value, bind, has_primitive
from jaxclf.xla.matrices import multiply_matrices
from jaxclf.xla.options import (
    WITH_RECOMPUTATION,
    has_fast_convolutions,
    is_onednn_faster,
    keep_usable,
    select_options,
)
from jaxclf.xla.products import add_shifted, find_products
from jaxclf.xla.space_to_depth import space_to_depth

CONVOLUTION, PRODUCT = "conv_general_dilated", "dot_general"
MAX_PARTS, MIN_PART = 4, 16
"""Largest number of parts of the batch over which a weight gradient is summed, and images of the smallest part."""


def rewrite_convolutions(function: Callable) -> Callable:
    """Rewrite the convolutions of a function for XLA's CPU backend.

    Args:
        function: A function of pytrees of arrays, differentiated already.

    Returns:
        A function with the same results up to rounding. It is the function as written on other backends, and with
        `JAXCLF_FAST_CONVOLUTIONS=0`.
    """
    return partial(FastConvolutions().run, function)


class FastConvolutions(Interpreter):
    """Rewrites the convolutions of a differentiated function, and finds the compiler options for it.

    Depthwise and 1 x 1 convolutions become products, see `jaxclf.xla.products`; a depthwise convolution that several
    kernels read is computed once, see `jaxclf.xla.fusion`. Groups, and gradients by thin images,
    are written as other convolutions, see `jaxclf.xla.decompositions`. All others get the layout of XLA's CPU library,
    images [b, ..., c] and kernels [..., c, features]. Weight gradients are summed over parts of the batch, and images
    with few channels are convolved in blocks of 2 x 2 pixels. Products become those of matrices, see
    `jaxclf.xla.matrices`. Convolutions in bodies that the interpreter does not enter stay as they are. After `run`,
    `compiler_options` has the options.
    """

    # XLA makes this change of layout only in the outermost program. Convolutions inside a loop become nested loops
    # instead, which are ten times slower (jax #12868). The barriers keep XLA from folding the transpositions back in.

    def __init__(self):
        self._is_active = False
        self._has_convolution = False
        self._has_checkpoint = False
        self._has_hidden_product = False
        self._recomputed: set[Var] = set()

    def run(self, function: Callable, *arguments: Any) -> Any:
        """Evaluate a function with its convolutions rewritten, if `has_fast_convolutions()`."""
        return super().run(function, *arguments) if has_fast_convolutions() else function(*arguments)

    def evaluate(self, jaxpr: ClosedJaxpr, arguments: list[Value]) -> list[Value]:
        """Return the outputs of a closed jaxpr."""
        # The first jaxpr is the whole program. One without convolutions is left as it is.
        eqns = jaxpr.jaxpr.eqns
        self._is_active = self._is_active or any(has_primitive(eqn, CONVOLUTION) for eqn in eqns)
        self._has_checkpoint = self._has_checkpoint or any(eqn.primitive.name in CHECKPOINTS for eqn in eqns)
        if self._is_active:
            self._recomputed |= find_recomputed(jaxpr.jaxpr)
        return super().evaluate(jaxpr, arguments)

    def handles(self, eqn: JaxprEqn, arguments: list[Value]) -> bool:
        """Return True for convolutions and, in programs that have some, products."""
        return self._is_active and (has_primitive(eqn, CONVOLUTION) or has_primitive(eqn, PRODUCT))

    def process_primitive(self, eqn: JaxprEqn, arguments: list[Any]) -> Any:
        """Return the outputs of a convolution or a product, with a barrier where oneDNN needs one."""
        name = eqn.primitive.name
        if name == CONVOLUTION:
            self._has_convolution = True
            if form := find_products(eqn):
                compute = partial(form, eqn)
                is_fused = form is add_shifted and eqn.outvars[0] in self._recomputed
                return compute_once(compute, *arguments) if is_fused else compute(*arguments)
            if simpler := find_decomposition(eqn):
                return self.evaluate(jax.make_jaxpr(simpler)(*arguments), arguments)[0]
            return _convolve(eqn, *arguments)
        if name == "while":
            return self._evaluate_while(eqn.params, arguments)
        if name == PRODUCT:
            outputs = multiply_matrices(eqn, *arguments)
            return lax.optimization_barrier(outputs) if is_onednn_faster() else outputs
        self._has_hidden_product = True
        return bind(eqn, arguments)

    def _evaluate_while(self, params: dict[str, Any], arguments: list[Value]) -> list[Value]:
        first, last = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]

        def condition(carry: list[Value]) -> Value:
            return self.evaluate(params["cond_jaxpr"], [*arguments[:first], *carry])[0]

        def body(carry: list[Value]) -> list[Value]:
            return self.evaluate(params["body_jaxpr"], [*arguments[first:last], *carry])

        return lax.while_loop(condition, body, arguments[last:])

    @property
    def compiler_options(self) -> dict[str, bool | str] | None:
        """XLA's options for the program; None if there are none."""
        # oneDNN of jax 0.12 fuses x * sigmoid(x) into the convolution or product before it and miscompiles it:
        # gradients are wrong by a third of the largest. Hence the barriers, and no oneDNN if a product has none.
        options = select_options(onednn=not self._has_hidden_product) if self._has_convolution else ()
        return dict(options + (keep_usable(WITH_RECOMPUTATION) if self._has_checkpoint else ())) or None


def _convolve(eqn: JaxprEqn, images: Array, kernel: Array) -> Array:
    """Return a convolution of any layout, computed in the layout [b, ..., c] and [..., c, features]."""
    numbers = eqn.params["dimension_numbers"]
    (b, c, *space), (features, into, *window) = numbers.lhs_spec, numbers.rhs_spec
    (out_b, out_c, *out_space) = numbers.out_spec
    layouts = (b, *space, c), (*window, into, features)
    output: Any = eqn.outvars[0].aval
    sides = [output.shape[axis] for axis in out_space]
    if _is_weight_gradient(eqn, kernel, sides):
        parts = _count_parts(images.shape[c])
        pairs = zip(_split_batch(images, c, parts), _split_batch(kernel, into, parts), strict=True)
        outputs = reduce(jnp.add, (_sum_examples(eqn, *_transpose(pair, layouts)) for pair in pairs))
    else:
        images, kernel = _transpose((images, kernel), layouts)
        suits_blocks = _is_thin(eqn, images, kernel, sides) and not is_onednn_faster()
        outputs = (_convolve_blocks if suits_blocks else _convolve_channels_last)(eqn, images, kernel)
    return outputs.transpose(np.argsort((out_b, *out_space, out_c)).tolist())


def _transpose(operands: Sequence[Array], layouts: Sequence[tuple[int, ...]]) -> list[Array]:
    return [
        x if layout == tuple(range(x.ndim)) else lax.optimization_barrier(x.transpose(layout))
        for x, layout in zip(operands, layouts, strict=True)
    ]


def _convolve_channels_last(eqn: JaxprEqn, images: Array, kernel: Array, **changes: Any) -> Array:
    """Convolve transposed operands; nothing is fused into the result."""
    rank = images.ndim
    axes = tuple(range(1, rank - 1))
    numbers = lax.ConvDimensionNumbers(
        (0, rank - 1, *axes), (rank - 1, rank - 2, *range(rank - 2)), (0, rank - 1, *axes)
    )
    params = eqn.params | {"dimension_numbers": numbers} | changes
    return lax.optimization_barrier(eqn.primitive.bind(images, kernel, **params))


def _is_weight_gradient(eqn: JaxprEqn, kernel: Array, out_space: list[int]) -> bool:
    """Return True if the window is larger than the output."""
    window = eqn.params["dimension_numbers"].rhs_spec[2:]
    return is_ungrouped(eqn) and prod(kernel.shape[axis] for axis in window) > prod(out_space)


def _count_parts(batch: int) -> int:
    """Return the number of equal parts of a batch over which a weight gradient is summed, a power of two."""
    return max((n for n in (2, MAX_PARTS) if batch % n == 0 and batch // n >= MIN_PART), default=1)


def _split_batch(x: Array, axis: int, parts: int) -> list[Array]:
    """Split an axis into parts. With four of them they are rows 0, 4, 8, …, rows 1, 5, 9, … and so on."""
    # Not blocks of rows: of a batch that is sharded over devices, every device has rows of each part, and none move.
    split = x.reshape(*x.shape[:axis], x.shape[axis] // parts, parts, *x.shape[axis + 1 :])
    return [lax.index_in_dim(split, i, axis + 1, keepdims=False) for i in range(parts)]


def _sum_examples(eqn: JaxprEqn, images: Array, outputs: Array) -> Array:
    """Return a weight gradient, which has the examples as channels and the outputs' gradients as its window."""
    if not is_onednn_faster():
        return _convolve_channels_last(eqn, images, outputs)
    # oneDNN is slower here, and XLA does not use it where the kernel is reversed, here along the output's channels.
    channels = (outputs.ndim - 1,)
    return lax.rev(_convolve_channels_last(eqn, images, lax.rev(outputs, channels)), channels)


def _is_thin(eqn: JaxprEqn, images: Array, kernel: Array, out_space: list[int]) -> bool:
    """Return True for a plain 2D convolution from few channels to more whose output divides into blocks of 2 x 2."""
    params, ones = eqn.params, (1,) * len(out_space)
    plain = params["window_strides"] == params["lhs_dilation"] == params["rhs_dilation"] == ones
    thin = len(out_space) == 2 and images.shape[-1] <= MAX_THIN_CHANNELS < kernel.shape[-1]
    fits = all(side % 2 == 0 for side in out_space) and min(kernel.shape[:2]) > 1
    return plain and is_ungrouped(eqn) and thin and fits and min(map(min, params["padding"])) >= 0


def _convolve_blocks(eqn: JaxprEqn, images: Array, kernel: Array) -> Array:
    """Convolve blocks of 2 x 2 pixels to blocks of 2 x 2 outputs, with four times as many channels of both."""
    # A window of k pixels lies in one of m blocks, at offset 0 or 1. The weights of the pixels around it are 0.
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
    blocks = map(lax.optimization_barrier, (space_to_depth(padded, 2), weights))
    outputs = _convolve_channels_last(eqn, *blocks, padding=((0, 0), (0, 0)))
    b, rows, columns, _ = outputs.shape
    pixels = outputs.reshape(b, rows, columns, 2, 2, features).transpose(0, 1, 3, 2, 4, 5)
    return pixels.reshape(b, 2 * rows, 2 * columns, features)
