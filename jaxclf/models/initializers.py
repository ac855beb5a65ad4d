"""Initializers of kernels, as fields of models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import flax.linen as nn
import jax
from jax.typing import DTypeLike
from jaxtyping import Float, Key

from jaxclf.errors import require
from jaxclf.types import Array


@dataclass(frozen=True)
class Normal:
    """Normal distribution with mean 0."""

    stddev: float = 0.02
    """Standard deviation."""

    def __post_init__(self):
        require(self.stddev >= 0, f"stddev={self.stddev}: expected at least 0")

    def __call__(
        self, key: Key[jax.Array, ""], shape: Sequence[int], dtype: DTypeLike = "float32"
    ) -> Float[Array, ...]:
        """Draw a kernel."""
        return nn.initializers.normal(self.stddev)(key, shape, dtype)


@dataclass(frozen=True)
class VarianceScaling:
    """Distribution with mean 0 and variance `scale` / fan, where the fan follows from the shape of the kernel.

    The defaults are Glorot uniform: X. Glorot, Y. Bengio, "Understanding the difficulty of training deep feedforward
    neural networks" (2010). He normal is scale 2, mode "fan_in" or "fan_out", distribution "normal".
    """

    scale: float = 1.0
    """Numerator of the variance."""
    mode: Literal["fan_in", "fan_out", "fan_avg"] = "fan_avg"
    """The fan: number of inputs, number of outputs, or their mean."""
    distribution: Literal["uniform", "normal", "truncated_normal"] = "uniform"
    """Shape of the distribution."""

    def __post_init__(self):
        require(self.scale > 0, f"scale={self.scale}: expected above 0")

    def __call__(
        self, key: Key[jax.Array, ""], shape: Sequence[int], dtype: DTypeLike = "float32"
    ) -> Float[Array, ...]:
        """Draw a kernel."""
        return nn.initializers.variance_scaling(self.scale, self.mode, self.distribution)(key, shape, dtype)
