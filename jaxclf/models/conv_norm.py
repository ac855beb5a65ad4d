"""A convolution and a normalization, of which residual networks are made."""

from __future__ import annotations

from math import gcd
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.initializers import Initializer
from jaxtyping import Float

from jaxclf.models.batch_norm import BatchNorm
from jaxclf.models.dtypes import Dtype, get_parameter_dtype
from jaxclf.models.initializers import VarianceScaling
from jaxclf.types import Array, promote_float

HEAD_INIT = VarianceScaling(1 / 3, "fan_in", "uniform")
"""Initializer of the kernel of the last layer: uniform up to 1 / sqrt(inputs), as in PyTorch."""
MAX_GROUPS = 32
"""Number of groups of channels in group normalization, fewer where a group would have less than two channels."""


class ConvNorm(nn.Module):
    """A 2D convolution without bias, then batch normalization, or group normalization.

    With group normalization the kernels are standardized.
    """

    features: int
    """Number of filters."""
    kernel_size: int = 1
    """Side of the filters, in pixels."""
    strides: int = 1
    """Stride of the convolution."""
    groups: int = 1
    """Groups of channels that are convolved separately. With as many as input channels it is depthwise."""
    padding: Literal["SAME", "symmetric"] = "SAME"
    """SAME, which has more pixels at the end if the stride needs an odd number, or `kernel_size // 2` on each side."""
    norm: Literal["batch", "group"] = "batch"
    """Batch normalization, or group normalization with 32 groups of at least two channels."""
    batch_norm_group: int | None = None
    """Examples that are normalized together in batch normalization; None: the whole batch."""
    epsilon: float = 1e-5
    """Added to the variance."""
    kernel_init: Initializer = VarianceScaling()
    """Initializer of the kernel."""
    scale_init: Initializer = nn.initializers.ones
    """Initializer of the scale of the normalization."""
    dtype: Dtype = "float32"
    """Type of the activations."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h2 w2 features"]:
        """Convolve and normalize activations.

        Args:
            x: Activations [b, h, w, c].
            train: Normalize with the statistics of the batch.

        Returns:
            Activations [b, ceil(h / strides), ceil(w / strides), features].
        """
        kept = get_parameter_dtype(self.dtype)
        padding = "SAME" if self.padding == "SAME" else self.kernel_size // 2
        x = nn.Conv(
            self.features, (self.kernel_size, self.kernel_size), self.strides, padding, use_bias=False,
            feature_group_count=self.groups, kernel_init=self.kernel_init, dtype=self.dtype, param_dtype=kept,
            conv_general_dilated=convolve_standardized if self.norm == "group" else None, name="conv",
        )(x)  # fmt: skip
        if self.norm == "batch":
            return BatchNorm(
                self.batch_norm_group, epsilon=self.epsilon, dtype=self.dtype, scale_init=self.scale_init, name="norm"
            )(x, train)
        return nn.GroupNorm(
            max(1, gcd(2 * MAX_GROUPS, self.features) // 2), epsilon=self.epsilon, dtype=self.dtype, param_dtype=kept,
            use_fast_variance=False, scale_init=self.scale_init, name="norm",
        )(x)  # fmt: skip


def convolve_standardized(
    images: Float[jax.Array, "b h w c"], kernel: Float[jax.Array, "h2 w2 c2 features"], *args: Any, **kwargs: Any
) -> Float[jax.Array, "b h3 w3 features"]:
    """Convolve images with filters that are scaled to mean 0 and variance 1.

    S. Qiao et al., "Micro-Batch Training with Batch-Channel Normalization and Weight Standardization" (2019),
    arXiv:1903.10520.
    """
    centered = promote_float(kernel)
    centered -= centered.mean((0, 1, 2), keepdims=True)
    standardized = centered * jax.lax.rsqrt((centered**2).mean((0, 1, 2), keepdims=True) + 1e-6)
    return jax.lax.conv_general_dilated(images, jnp.asarray(standardized, images.dtype), *args, **kwargs)
