"""Layers of the models."""

from __future__ import annotations

from functools import partial, reduce
from math import isqrt
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.initializers import Initializer
from jaxtyping import Float

from jaxclf.errors import UserError, require
from jaxclf.models.dtypes import Dtype, get_parameter_dtype
from jaxclf.types import Array

Padding = Literal["SAME", "VALID"] | int
"""Zero padding of convolutions: SAME, VALID (none), or the number of pixels on each side."""


def check_sizes(**sizes: int) -> None:
    """Raise UserError unless every size is at least 1."""
    for name, size in sizes.items():
        require(size >= 1, f"{name}={size}: expected at least 1")


GLOROT_UNIFORM = nn.initializers.glorot_uniform()


def make_dense(
    features: int, dtype: Dtype, name: str, use_bias: bool = True, kernel_init: Initializer = GLOROT_UNIFORM
) -> nn.Dense:
    """Return a dense layer with a bias of zeros."""
    kept = get_parameter_dtype(dtype)
    return nn.Dense(features, use_bias, dtype, kept, kernel_init=kernel_init, name=name)


def make_conv(
    features: int,
    kernel_size: int,
    strides: int,
    padding: Padding,
    dtype: Dtype,
    name: str,
    use_bias: bool = True,
    groups: int = 1,
    kernel_init: Initializer = GLOROT_UNIFORM,
) -> nn.Conv:
    """Return a 2D convolution with a bias of zeros. With as many groups as input channels it is depthwise."""
    return nn.Conv(
        features,
        (kernel_size, kernel_size),
        strides=strides,
        padding=padding,
        feature_group_count=groups,
        use_bias=use_bias,
        dtype=dtype,
        param_dtype=get_parameter_dtype(dtype),
        kernel_init=kernel_init,
        name=name,
    )


def reshape_to_images(images: Float[Array, "b ..."]) -> Float[Array, "b h w c"]:
    """Reshape flat images [b, h·w·c] of squares to [b, h, w, c], with 1 or 3 channels; return others unchanged."""
    if images.ndim == 4:
        return images
    if images.ndim == 2:
        for channels in (1, 3):
            side = isqrt(images.shape[1] // channels)
            if side * side * channels == images.shape[1]:
                return images.reshape(-1, side, side, channels)
    raise UserError(
        f"images of shape {list(images.shape)}: expected [b, h, w, c], or [b, n] where n or n / 3 is a square"
    )


class Flatten(nn.Module):
    """Flattens all axes but the first."""

    @nn.compact
    def __call__(self, x: Float[Array, "b ..."]) -> Float[Array, "b n"]:
        """Reshape [b, ...] to [b, n], in row-major order."""
        return x.reshape(x.shape[0], -1)


class MaxPool(nn.Module):
    """Max-pooling over windows of `window` x `window` pixels.

    Rows and columns at the end that do not fill a window are dropped, as with VALID padding.
    """

    window: int = 2
    """Side of the windows, in pixels."""
    stride: int | None = None
    """Distance between windows, in pixels; None: that of windows that do not overlap."""
    padding: int = 0
    """Pixels of minus infinity on each side."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
        """Reduce [b, h, w, c] to [b, (h + 2 padding - window) // stride + 1, likewise for w, c].

        The gradient of a window goes to the first of equal maxima, as with `flax.linen.max_pool`.
        """
        return _pool_windows(x, Windows(self.window, self.stride or self.window, self.padding))


class Windows(NamedTuple):
    """The windows of a pooling layer."""

    side: int
    stride: int
    padding: int


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _pool_windows(x: Float[Array, "b h w c"], windows: Windows) -> Float[Array, "b h2 w2 c"]:
    return reduce(jnp.maximum, _split_windows(x, windows, -jnp.inf))


@_pool_windows.defjvp
def _differentiate_pooling(windows: Windows, primals: tuple, tangents: tuple):
    # The maxima are found by comparison: XLA's gradient of a window reduction is a scatter, which took half the step of
    # a CNN on CPUs.
    pixels = _split_windows(primals[0], windows, -jnp.inf)
    largest = jax.lax.stop_gradient(reduce(jnp.maximum, pixels))

    def select_largest(values):
        *others, chosen = values
        for pixel, value in zip(pixels[-2::-1], others[::-1], strict=True):
            chosen = jnp.where(pixel == largest, value, chosen)
        return chosen

    last = jnp.where(jnp.isnan(largest), largest, pixels[-1])  # NaN == NaN is false, and NaNs must propagate
    return select_largest([*pixels[:-1], last]), select_largest(_split_windows(tangents[0], windows, 0.0))


def _split_windows(x: Float[Array, "b h w c"], windows: Windows, fill: float) -> list[Float[Array, "b h2 w2 c"]]:
    """Return the pixels of windows, one array for each place in a window. Padding is filled."""
    k, stride, padding = windows
    if padding:
        x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)), constant_values=fill)
    b, h, w, c = x.shape
    places = [(i, j) for i in range(k) for j in range(k)]
    if stride == k:
        squares = x[:, : h // k * k, : w // k * k].reshape(b, h // k, k, w // k, k, c)
        return [squares[:, :, i, :, j] for i, j in places]
    rows, columns = (stride * ((side - k) // stride) + 1 for side in (h, w))
    return [x[:, i : i + rows : stride, j : j + columns : stride] for i, j in places]
