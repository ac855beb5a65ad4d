"""Layers and functions that networks with residual blocks share."""

from __future__ import annotations

import math

import flax.linen as nn
import jax.numpy as jnp
from flax.linen.initializers import Initializer
from jax import lax
from jaxtyping import Float

from jaxclf.models.dropout import Dropout, DropPath
from jaxclf.models.dtypes import Dtype, get_parameter_dtype
from jaxclf.models.layers import make_dense
from jaxclf.types import Array


def make_layer_norm(dtype: Dtype, name: str) -> nn.LayerNorm:
    """Return a layer normalization of the last axis. Its mean and variance are float32 or float64."""
    # Not the variance E[x²] - E[x]²: it loses the digits that a large mean takes.
    return nn.LayerNorm(1e-6, dtype=dtype, param_dtype=get_parameter_dtype(dtype), use_fast_variance=False, name=name)


def apply_dropout(x: Float[Array, "b ..."], rate: float, name: str, train: bool) -> Float[Array, "b ..."]:
    """Apply dropout in training. Where it does nothing there is no module, which saliency would take for a layer."""
    return Dropout(rate, name=name)(x, train) if rate and train else x


def compute_drop_path_rates(rate: float, depth: int) -> list[float]:
    """Return the rate of each residual block, from 0 at the first one to `rate` at the last one."""
    return [rate * i / max(depth - 1, 1) for i in range(depth)]


class LayerScale(nn.Module):
    """Multiplies each channel of a residual branch by a trained scale.

    H. Touvron et al., "Going deeper with Image Transformers" (2021), arXiv:2103.17239.
    """

    initial: float
    """Value of the scales before training."""
    dtype: Dtype = "float32"
    """Type of the result."""

    @nn.compact
    def __call__(self, x: Float[Array, "b ... c"]) -> Float[Array, "b ... c"]:
        """Scale activations [b, ..., c] by the channel."""
        scale = self.param(
            "scale", nn.initializers.constant(self.initial), x.shape[-1:], get_parameter_dtype(self.dtype)
        )
        return x * jnp.asarray(scale, self.dtype).reshape((1,) * (x.ndim - 1) + scale.shape)


def add_branch(
    x: Float[Array, "b ... c"],
    branch: Float[Array, "b ... c"],
    layer_scale: float | None,
    drop_path: float,
    dtype: Dtype,
    train: bool,
    suffix: str = "",
) -> Float[Array, "b ... c"]:
    """Add a residual branch, after its layer scale and, in training, drop path. Modules without effect are left out."""
    if layer_scale is not None:
        branch = LayerScale(layer_scale, dtype, name=f"scale{suffix}")(branch)
    if drop_path and train:
        branch = DropPath(drop_path, name=f"drop{suffix}")(branch, train)
    return x + branch


class MlpBlock(nn.Module):
    """A dense layer, exact GELU, and a dense layer back to the same width."""

    hidden: int
    """Units between the dense layers."""
    kernel_init: Initializer
    """Initializer of the kernels."""
    dropout: float = 0.0
    """Dropout rate after each dense layer."""
    dtype: Dtype = "float32"
    """Type of the activations."""

    @nn.compact
    def __call__(self, x: Float[Array, "b ... c"], train: bool) -> Float[Array, "b ... c"]:
        """Transform the channels of activations [b, ..., c] at each position.

        Args:
            x: Activations.
            train: Apply dropout; this needs the random stream "dropout".
        """
        width = x.shape[-1]
        x = make_dense(self.hidden, self.dtype, "dense1", kernel_init=self.kernel_init)(x)
        # `nn.gelu` uses erfc, which takes an exponential and both of two branches more on CPUs.
        x = x * (1 + lax.erf(x * math.sqrt(0.5))) / 2
        x = apply_dropout(x, self.dropout, "dropout1", train)
        x = make_dense(width, self.dtype, "dense2", kernel_init=self.kernel_init)(x)
        return apply_dropout(x, self.dropout, "dropout2", train)
