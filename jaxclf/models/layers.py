"""Layers of the models."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial, reduce
from math import isqrt
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from jaxclf.errors import UserError, require
from jaxclf.types import Array

Dtype = Literal["float32", "bfloat16"]

_positions: ContextVar[Array | None] = ContextVar("positions", default=None)


@contextmanager
def use_example_positions(positions: Int[Array, " b"]) -> Iterator[None]:
    """Set the positions of the examples in the whole batch, for the dropout masks of models applied in this context.

    A device, or a part of an accumulated gradient, has only some rows of a batch. With their positions, they draw the
    masks of the whole batch.

    Args:
        positions: The position of each row in the whole batch.
    """
    token = _positions.set(positions)
    try:
        yield
    finally:
        _positions.reset(token)


def check_sizes(**sizes: int) -> None:
    """Raise UserError unless every size is at least 1."""
    for name, size in sizes.items():
        require(size >= 1, f"{name}={size}: expected at least 1")


def check_dropout(rate: float) -> None:
    """Raise UserError unless the dropout rate is at least 0 and below 1."""
    require(0 <= rate < 1, f"dropout={rate}: expected at least 0 and below 1")


def make_dense(features: int, dtype: Dtype, name: str, use_bias: bool = True) -> nn.Dense:
    """Return a dense layer with a Glorot-uniform kernel and a bias of zeros, both float32."""
    return nn.Dense(features, use_bias, dtype, kernel_init=nn.initializers.glorot_uniform(), name=name)


def make_conv(
    features: int,
    kernel_size: int,
    strides: int,
    padding: Literal["SAME", "VALID"] | int,
    dtype: Dtype,
    name: str,
    use_bias: bool = True,
) -> nn.Conv:
    """Return a 2D convolution with a Glorot-uniform kernel and a bias of zeros, both float32."""
    return nn.Conv(
        features,
        (kernel_size, kernel_size),
        strides=strides,
        padding=padding,
        use_bias=use_bias,
        dtype=dtype,
        kernel_init=nn.initializers.glorot_uniform(),
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
    """Max-pooling over windows of `window` x `window` pixels that do not overlap.

    Rows and columns that do not fill a window are dropped, as with VALID padding.
    """

    window: int = 2

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
        """Reduce [b, h, w, c] to [b, h // window, w // window, c].

        The gradient of a window goes to the first of equal maxima, as with `flax.linen.max_pool`.
        """
        return _pool_windows(x, self.window)


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _pool_windows(x: Float[Array, "b h w c"], window: int) -> Float[Array, "b h2 w2 c"]:
    return reduce(jnp.maximum, _split_windows(x, window))


@_pool_windows.defjvp
def _differentiate_pooling(window: int, primals: tuple, tangents: tuple):
    # The maxima are found by comparison: XLA's gradient of a window reduction is a scatter, which took half the step of
    # a CNN on CPUs.
    pixels = _split_windows(primals[0], window)
    largest = jax.lax.stop_gradient(reduce(jnp.maximum, pixels))

    def select_largest(values):
        *others, chosen = values
        for pixel, value in zip(pixels[-2::-1], others[::-1], strict=True):
            chosen = jnp.where(pixel == largest, value, chosen)
        return chosen

    last = jnp.where(jnp.isnan(largest), largest, pixels[-1])  # NaN == NaN is false, and NaNs must propagate
    return select_largest([*pixels[:-1], last]), select_largest(_split_windows(tangents[0], window))


def _split_windows(x: Float[Array, "b h w c"], k: int) -> list[Float[Array, "b h2 w2 c"]]:
    """Return the pixels of k x k windows, one array for each place in a window."""
    b, h, w, c = x.shape
    squares = x[:, : h // k * k, : w // k * k].reshape(b, h // k, k, w // k, k, c)
    return [squares[:, :, i, :, j] for i in range(k) for j in range(k)]


class Dropout(nn.Module):
    """Dropout whose masks do not depend on how a batch is split over devices or accumulation steps.

    Masks are keyed by the position of an example in the batch, see `use_example_positions`.
    N. Srivastava et al., "Dropout" (2014).
    """

    rate: float

    @nn.compact
    def __call__(self, x: Float[Array, "b ..."], train: bool) -> Float[Array, "b ..."]:
        """Zero a fraction `rate` of the activations and scale the others by 1 / (1 - rate).

        Args:
            x: Activations.
            train: If False, x is returned unchanged. If True, the random stream "dropout" is needed.
        """
        if not train or self.rate == 0:
            return x
        positions = _positions.get()
        if positions is None:
            positions = jnp.arange(x.shape[0])
        key = self.make_rng("dropout")
        keep = jax.vmap(
            lambda position: jax.random.bernoulli(jax.random.fold_in(key, position), 1 - self.rate, x.shape[1:])
        )(positions)
        return jnp.where(keep, x / (1 - self.rate), 0).astype(x.dtype)
