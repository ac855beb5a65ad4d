"""The layers models are made of: initialisers, dtypes and named modules that are worth seeing in a summary."""

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
def example_positions(positions: Int[Array, " b"]) -> Iterator[None]:
    """While tracing inside, row i of a batch is example `positions[i]` of the whole batch.

    A device, or a part of an accumulated gradient, sees only some rows; by their positions they draw the
    masks that they would draw in the whole batch.
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
    """Raise UserError unless the rate leaves something."""
    require(0 <= rate < 1, f"dropout={rate}: expected at least 0 and below 1")


def dense(features: int, dtype: Dtype, name: str, use_bias: bool = True) -> nn.Dense:
    """A fully connected layer: Glorot-uniform kernel, zero bias, float32 parameters."""
    return nn.Dense(features, use_bias, dtype, kernel_init=nn.initializers.glorot_uniform(), name=name)


def conv(
    features: int,
    kernel_size: int,
    strides: int,
    padding: Literal["SAME", "VALID"] | int,
    dtype: Dtype,
    name: str,
    use_bias: bool = True,
) -> nn.Conv:
    """A square convolution: Glorot-uniform kernel, zero bias. A side W becomes (W - K + 2P)/S + 1, rounded down."""
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


def as_images(images: Float[Array, "b ..."]) -> Float[Array, "b h w c"]:
    """Flat images [b, h·w·c] as [b, h, w, c]: a square number is grey, three times one is colour."""
    if images.ndim == 4:
        return images
    if images.ndim == 2:
        for channels in (1, 3):
            side = isqrt(images.shape[1] // channels)
            if side * side * channels == images.shape[1]:
                return images.reshape(-1, side, side, channels)
    raise UserError(
        f"images of shape {list(images.shape)}: expected [b, h, w, c], or [b, n] with n a square or three times one"
    )


class Flatten(nn.Module):
    """[b, ...] to [b, n]."""

    @nn.compact
    def __call__(self, x: Float[Array, "b ..."]) -> Float[Array, "b n"]:
        """Keep the first axis, join the others in row-major order."""
        return x.reshape(x.shape[0], -1)


class MaxPool(nn.Module):
    """The largest of every `window` x `window` square, squares side by side; a rest at the edge is left out."""

    window: int = 2

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
        """Pool. Gradients go to the first of equal maxima, as those of `flax.linen.max_pool` do."""
        return _max_pool(x, self.window)


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _max_pool(x: Float[Array, "b h w c"], window: int) -> Float[Array, "b h2 w2 c"]:
    return reduce(jnp.maximum, _places(x, window))


@_max_pool.defjvp
def _max_pool_jvp(window: int, primals: tuple, tangents: tuple):
    """Chosen by comparison: the gradient of a window reduction is a slow scatter on CPU, half a CNN's step."""
    places = _places(primals[0], window)
    largest = jax.lax.stop_gradient(reduce(jnp.maximum, places))

    def at_largest(values):
        *others, chosen = values
        for place, value in zip(places[-2::-1], others[::-1], strict=True):
            chosen = jnp.where(place == largest, value, chosen)
        return chosen

    last = jnp.where(jnp.isnan(largest), largest, places[-1])  # a NaN equals nothing, and must not be lost
    return at_largest([*places[:-1], last]), at_largest(_places(tangents[0], window))


def _places(x: Float[Array, "b h w c"], k: int) -> list[Float[Array, "b h2 w2 c"]]:
    """What is at each place of a k x k square."""
    b, h, w, c = x.shape
    squares = x[:, : h // k * k, : w // k * k].reshape(b, h // k, k, w // k, k, c)
    return [squares[:, :, i, :, j] for i in range(k) for j in range(k)]


class Dropout(nn.Module):
    """Zero a share `rate` of the activations in training, and scale the others up to the same expectation.

    Masks are keyed by the position of an example in the batch (`example_positions`), so they do not depend on
    how the batch is spread over devices. N. Srivastava et al., "Dropout" (2014).
    """

    rate: float

    @nn.compact
    def __call__(self, x: Float[Array, "b ..."], train: bool) -> Float[Array, "b ..."]:
        """Drop in training, needing the random stream `dropout`; otherwise give x as it is."""
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
