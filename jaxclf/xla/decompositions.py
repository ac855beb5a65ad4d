"""Convolutions written as others, which XLA's CPU backend runs faster. Measurements are in docs/log.md."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import JaxprEqn

from jaxclf.xla.options import is_onednn_faster

ALONE = {"feature_group_count": 1, "batch_group_count": 1}
"""Parameters of a convolution without groups."""
MAX_THIN_CHANNELS = 4
"""Largest number of channels of images that are convolved in blocks, or whose gradient is computed by phases."""
MAX_ZEROS = 0.4
"""Largest number of zeros that may be added to a kernel for it, relative to its pixels."""
Simpler = Callable[[jax.Array, jax.Array], jax.Array]


def find_decomposition(eqn: JaxprEqn) -> Simpler | None:
    """Return a function of images and kernel that computes a convolution by faster ones, or None if there is none."""
    return _find_loop(eqn) or _find_phases(eqn)


def is_ungrouped(eqn: JaxprEqn) -> bool:
    """Return True for a convolution in which all channels are summed."""
    return all(eqn.params[name] == count for name, count in ALONE.items())


def _find_loop(eqn: JaxprEqn) -> Simpler | None:
    """Return a loop over the groups of a convolution, if it is faster."""
    images, kernel, output = _get_shapes(eqn)
    params, numbers = eqn.params, eqn.params["dimension_numbers"]
    (b, c, *_), (features, into, *_) = numbers.lhs_spec, numbers.rhs_spec
    if params["feature_group_count"] > 1:
        groups, split = params["feature_group_count"], c
        is_slow = kernel[into] > 1 and not is_onednn_faster()
    else:  # the weight gradient of such a convolution, which XLA computes number by number
        groups, split = params["batch_group_count"], b
        is_slow = groups < max(images[b], kernel[features])

    def convolve_each(images: jax.Array, kernel: jax.Array) -> jax.Array:
        parts = _split_axis(images, split, groups), _split_axis(kernel, features, groups)
        outputs = lax.map(lambda pair: eqn.primitive.bind(*pair, **params | ALONE), parts)
        return jnp.moveaxis(outputs, 0, numbers.out_spec[1]).reshape(output)

    return convolve_each if groups > 1 and is_slow else None


def _split_axis(x: jax.Array, axis: int, parts: int) -> jax.Array:
    """Split an axis into consecutive parts, which become the first axis."""
    split = x.reshape(*x.shape[:axis], parts, x.shape[axis] // parts, *x.shape[axis + 1 :])
    return jnp.moveaxis(split, axis, 0)


def _find_phases(eqn: JaxprEqn) -> Simpler | None:
    """Return the gradient by thin images of a convolution with strides, as one convolution without zeros between.

    Outputs at the same place modulo the strides, a phase, use the same pixels of the kernel. The phases become
    channels of one convolution, and are then put in their places.
    """
    _, kernel, output = _get_shapes(eqn)
    params, numbers = eqn.params, eqn.params["dimension_numbers"]
    dilation, (features, into, *window), (b, c, *space) = params["lhs_dilation"], numbers.rhs_spec, numbers.out_spec
    is_plain = is_ungrouped(eqn) and prod(params["window_strides"]) == prod(params["rhs_dilation"]) == 1
    if not (is_plain and len(dilation) == 2 and min(dilation) > 1 and output[c] <= MAX_THIN_CHANNELS):
        return None
    axes = [
        _Axis(output[side], kernel[size], d, low)
        for side, size, d, (low, _) in zip(space, window, dilation, params["padding"], strict=True)
    ]
    pixels = prod(kernel[size] for size in window)
    if prod(a.size * a.dilation for a in axes) > (1 + MAX_ZEROS) * pixels:
        return None

    def convolve_phases(images: jax.Array, kernel: jax.Array) -> jax.Array:
        x = images.transpose(numbers.lhs_spec[0], *numbers.lhs_spec[2:], numbers.lhs_spec[1])
        weights = kernel.transpose(*window, into, features)
        weights = lax.pad(weights, jnp.zeros((), weights.dtype), [(*a.pads, 0) for a in axes] + [(0, 0, 0)] * 2)
        (m, p), (n, q) = ((a.size, a.dilation) for a in axes)
        weights = weights.reshape(m, p, n, q, *weights.shape[2:])[:, ::-1, :, ::-1]
        weights = weights.transpose(0, 2, 4, 1, 3, 5).reshape(m, n, x.shape[-1], -1)
        paddings = [
            (-a.first, a.count + a.size - 1 - side + a.first) for a, side in zip(axes, x.shape[1:3], strict=True)
        ]
        y = lax.conv_general_dilated(
            x, weights, (1, 1), paddings, dimension_numbers=("NHWC", "HWIO", "NHWC"), precision=params["precision"],
            preferred_element_type=params["preferred_element_type"],
        )  # fmt: skip
        y = y.reshape(len(x), axes[0].count, axes[1].count, p, q, -1).transpose(0, 1, 3, 2, 4, 5)
        y = y.reshape(len(x), axes[0].count * p, axes[1].count * q, -1)[:, : output[space[0]], : output[space[1]]]
        return y.transpose([(b, *space, c).index(axis) for axis in range(4)])

    return convolve_phases


class _Axis:
    """The phases of a convolution along an axis: output d · j + phase sums pixels j + first to j + first + size - 1."""

    def __init__(self, side: int, kernel: int, dilation: int, low: int):
        self.dilation = dilation
        self.count = -(-side // dilation)
        """Number of outputs of a phase."""
        # Pixel m of the images and pixel i of the kernel meet at output d · m - i + low.
        self.first = -(low // dilation)
        self.size = -((low - kernel + 1) // dilation) - self.first + 1
        start = dilation * self.first + low - (dilation - 1)
        self.pads = -start, start + dilation * self.size - kernel
        """Zeros before and after the kernel, which is then a block of `dilation` pixels for each of `size`."""


def _get_shapes(eqn: JaxprEqn) -> tuple[tuple[int, ...], ...]:
    """Return the shapes of images, kernel and output."""
    atoms: list[Any] = [*eqn.invars, *eqn.outvars]
    return tuple(atom.aval.shape for atom in atoms)
