"""Depthwise convolutions as sums of shifted products, and 1 x 1 convolutions as matrix products.

XLA's CPU backend computes the groups of a convolution one by one, and copies images for its library even if a window is
one pixel. Measurements are in docs/log.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from math import gcd, prod
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import JaxprEqn
from jax.typing import DTypeLike

from jaxclf.types import Array, promote_float

MAX_WINDOW = 49
"""Largest number of pixels of a window of which each one becomes a product."""
Form = Callable[[JaxprEqn, Array, Array], Array]


def find_products(eqn: JaxprEqn) -> Form | None:
    """Return the function that computes a convolution by products, or None if it has no such form.

    The function takes the equation, the images and the kernel.
    """
    params, numbers, atoms = eqn.params, eqn.params["dimension_numbers"], cast(list[Any], eqn.invars)
    images, kernel = (atom.aval.shape for atom in atoms)
    window, sides = prod(kernel[axis] for axis in numbers.rhs_spec[2:]), prod(_get_sides(eqn))
    features = kernel[numbers.rhs_spec[0]]
    is_undilated, has_strides = prod(params["lhs_dilation"]) == 1, prod(params["window_strides"]) > 1
    if params["feature_group_count"] == params["batch_group_count"] == 1:
        if window == 1:
            return _multiply_channels
        return _multiply_examples if sides == 1 and is_undilated else None
    if len(numbers.lhs_spec) != 4 or not jnp.issubdtype(_get_dtype(eqn), jnp.floating):
        return None
    if params["feature_group_count"] == images[numbers.lhs_spec[1]] == features and window <= MAX_WINDOW:
        return add_shifted if is_undilated or not has_strides else None
    if params["batch_group_count"] == images[numbers.lhs_spec[0]] == features and sides <= MAX_WINDOW:
        return _correlate if is_undilated else None
    return None


def _multiply_channels(eqn: JaxprEqn, images: Array, kernel: Array) -> Array:
    """Return a 1 x 1 convolution: the channels of each pixel times a matrix."""
    params, numbers = eqn.params, eqn.params["dimension_numbers"]
    strides, pads = params["window_strides"], _get_pads(eqn)
    x = _order(images, numbers.lhs_spec)
    if prod(strides) > 1:
        x, pads = _take_pixels(_pad(x, pads), (0,) * len(strides), strides, _get_sides(eqn)), []
    matrix = kernel.transpose(numbers.rhs_spec).reshape(-1, x.shape[-1])  # [features, c]
    y = _multiply(eqn, x.reshape(-1, x.shape[-1]), matrix, axes=(1, 1))
    return _restore(_pad(y.reshape(*x.shape[:-1], -1), pads), numbers.out_spec)


def _multiply_examples(eqn: JaxprEqn, images: Array, kernel: Array) -> Array:
    """Return a convolution whose output is one pixel, such as the weight gradient of a 1 x 1 convolution."""
    params, numbers = eqn.params, eqn.params["dimension_numbers"]
    # What is summed over, the "channels", are the examples of a batch, and the channels are its "examples".
    operands = (images, numbers.lhs_spec), (kernel, numbers.rhs_spec)
    x, y = (_order(x, (c, b, *space)) for x, (b, c, *space) in operands)
    ones = (1,) * (x.ndim - 2)
    x = _take_pixels(_pad(x, _get_pads(eqn)), (0,) * len(ones), params["rhs_dilation"], y.shape[1:-1])
    z = _multiply(eqn, x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1]), axes=(0, 0))
    return _restore(z.reshape(z.shape[0], *ones, z.shape[1]), numbers.out_spec)


def add_shifted(eqn: JaxprEqn, images: Array, kernel: Array) -> Array:
    """Return a depthwise convolution: the sum of shifted images, each times one pixel of the kernel.

    Where the images are dilated, as in the gradient of a convolution with strides, this is done for each phase, the
    outputs at every d-th pixel. They use the same pixels of the kernel, those that do not meet the zeros between.
    """
    numbers, strides, dilation = (eqn.params[name] for name in ("dimension_numbers", "window_strides", "lhs_dilation"))
    x, sides = _order(images, numbers.lhs_spec), _get_sides(eqn)
    weights = promote_float(kernel.transpose(*numbers.rhs_spec[2:], *numbers.rhs_spec[:2])[..., 0])
    counts = [-(-side // d) for side, d in zip(sides, dilation, strict=True)]
    starts = [_find_starts(eqn, axis, weights.shape[axis]) for axis in (0, 1)]
    before = [max(0, -min(found.values())) for found in starts]
    reach = [max(found.values()) + (n - 1) * s + 1 for found, n, s in zip(starts, counts, strides, strict=True)]
    after = [max(0, end - n) for end, n in zip(reach, x.shape[1:3], strict=True)]
    x = lax.optimization_barrier(_pad(x, [(first, last, 0) for first, last in zip(before, after, strict=True)]))

    def add_products(p: int, q: int) -> Array:
        total = jnp.zeros((x.shape[0], *counts, x.shape[-1]), weights.dtype)
        for i, j in product(*map(range, weights.shape[:2])):
            if (p, i) in starts[0] and (q, j) in starts[1]:
                place = before[0] + starts[0][p, i], before[1] + starts[1][q, j]
                total += promote_float(_take_pixels(x, place, strides, counts)) * weights[i, j].reshape(1, 1, 1, -1)
        return total

    phases = [add_products(p, q) for p, q in product(*map(range, dilation))]
    y = jnp.stack(phases, axis=3).reshape(x.shape[0], *counts, *dilation, -1).transpose(0, 1, 3, 2, 4, 5)
    y = y.reshape(x.shape[0], counts[0] * dilation[0], counts[1] * dilation[1], -1)[:, : sides[0], : sides[1]]
    return _restore(y.astype(_get_dtype(eqn)), numbers.out_spec)


def _find_starts(eqn: JaxprEqn, axis: int, size: int) -> dict[tuple[int, int], int]:
    """Return the first pixel of the images that a phase and a pixel of the kernel multiply, where they do."""
    low, _ = eqn.params["padding"][axis]
    dilation, step = eqn.params["lhs_dilation"][axis], eqn.params["rhs_dilation"][axis]
    places = {(phase, i): phase + i * step - low for phase in range(dilation) for i in range(size)}
    return {key: place // dilation for key, place in places.items() if place % dilation == 0}


def _correlate(eqn: JaxprEqn, images: Array, kernel: Array) -> Array:
    """Return the weight gradient of a depthwise convolution, with sums over the rows of the images in a loop."""
    # One sum over all examples and pixels for each pixel of the window takes 10 to 25 times as long on CPUs: it reads
    # all of them with the stride of a channel.
    params, numbers = eqn.params, eqn.params["dimension_numbers"]
    operands = (images, numbers.lhs_spec), (kernel, numbers.rhs_spec)
    x, y = (_order(x, (c, b, *space)) for x, (b, c, *space) in operands)
    x = _pad(x, _get_pads(eqn))
    (height, width), strides, dilation = _get_sides(eqn), params["window_strides"], params["rhs_dilation"]
    # The examples of each device are added there, in every row, and only the results are added over devices.
    devices = gcd(y.shape[0], jax.device_count())

    def add_row(sums: list[Array], row: Array) -> tuple[list[Array], None]:
        pixels = promote_float(lax.dynamic_slice_in_dim(y, row, 1, axis=1))
        window = lax.dynamic_slice_in_dim(x, row * dilation[0], (height - 1) * strides[0] + 1, axis=1)
        for j, total in enumerate(sums):
            part = _take_pixels(window, (0, j * strides[1]), (strides[0], dilation[1]), (height, y.shape[2]))
            values = (promote_float(part) * pixels).reshape(devices, len(y) // devices, *total.shape[1:])
            sums[j] = total + values.sum(1)
        return sums, None

    zeros = jnp.zeros((devices, height, *y.shape[2:]), promote_float(y[:0]).dtype)
    sums, _ = lax.scan(add_row, [zeros] * width, jnp.arange(y.shape[1]))
    z = jnp.stack([total.sum((0, 2)) for total in sums], axis=1)[None]
    return _restore(z.astype(_get_dtype(eqn)), numbers.out_spec)


def _multiply(eqn: JaxprEqn, x: Array, y: Array, axes: tuple[int, int]) -> Array:
    """Return a matrix product, summed over an axis of each operand."""
    numbers, precision = (((axes[0],), (axes[1],)), ((), ())), eqn.params["precision"]
    z = lax.dot_general(x, y, numbers, precision=precision, preferred_element_type=_get_dtype(eqn))
    return lax.optimization_barrier(z)  # what oneDNN would fuse it miscompiles


def _get_sides(eqn: JaxprEqn) -> list[int]:
    """Return the height and width of the output."""
    output: Any = eqn.outvars[0].aval
    return [output.shape[axis] for axis in eqn.params["dimension_numbers"].out_spec[2:]]


def _get_pads(eqn: JaxprEqn) -> list[tuple[int, int, int]]:
    """Return the padding of the images for `lax.pad`: before, after, and between the pixels."""
    params = eqn.params
    return [(low, high, d - 1) for (low, high), d in zip(params["padding"], params["lhs_dilation"], strict=True)]


def _get_dtype(eqn: JaxprEqn) -> DTypeLike:
    output: Any = eqn.outvars[0].aval
    return output.dtype


def _pad(x: Array, pads: Sequence[tuple[int, int, int]]) -> Array:
    if not any(map(any, pads)):
        return x
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *pads, (0, 0, 0)])


def _take_pixels(x: Array, starts: Sequence[int], strides: Sequence[int], sides: Sequence[int]) -> Array:
    """Return every `strides`-th pixel of images [b, ..., c] from `starts`, as many as `sides`."""
    stops = [a + (n - 1) * s + 1 for a, n, s in zip(starts, sides, strides, strict=True)]
    return lax.slice(x, (0, *starts, 0), (x.shape[0], *stops, x.shape[-1]), (1, *strides, 1))


def _order(x: Array, spec: Sequence[int]) -> Array:
    """Return an array in the layout [b, ..., c]."""
    b, c, *space = spec
    return x.transpose(b, *space, c)


def _restore(y: Array, spec: Sequence[int]) -> Array:
    """Return an array [b, ..., c] in the layout of an equation's output."""
    b, c, *space = spec
    return y.transpose([(b, *space, c).index(axis) for axis in range(y.ndim)])
