"""Convolution, ReLU and pooling, then dense layers: the network of the MNIST and Simpsons studies."""

from __future__ import annotations

from typing import Literal

import flax.linen as nn
from jaxtyping import Float, Num

from jaxclf.errors import require
from jaxclf.models.layers import Dropout, Dtype, Flatten, MaxPool, as_images, check_dropout, check_sizes, conv, dense
from jaxclf.types import Array, unit_range


class Cnn(nn.Module):
    """Stages of convolution, ReLU and max-pooling, then dense layers with ReLU, then the logits."""

    features: tuple[int, ...]
    """Filters of each convolution."""
    dense: tuple[int, ...]
    """Width of each dense layer before the logits."""
    classes: int
    """Number of logits."""
    kernel_size: int = 3
    """Side K of the square filters."""
    strides: int = 1
    """Step S of the filters: a side W becomes (W - K + 2P)/S + 1."""
    padding: Literal["SAME", "VALID"] | int = "SAME"
    """Zeros around the image: a number P a side, SAME (a stride of 1 keeps the side) or VALID (none)."""
    pool: int = 2
    """Side of the pooled squares."""
    dropout: float = 0.0
    """Share dropped in training before each dense layer and before the logits."""
    dtype: Dtype = "float32"
    """What activations are computed in; parameters and logits are float32."""

    def __post_init__(self):
        check_sizes(kernel_size=self.kernel_size, strides=self.strides, pool=self.pool, classes=self.classes)
        check_sizes(**{f"features[{i}]": filters for i, filters in enumerate(self.features)})
        check_sizes(**{f"dense[{i}]": width for i, width in enumerate(self.dense)})
        require(isinstance(self.padding, str) or self.padding >= 0, f"padding={self.padding}: expected at least 0")
        check_dropout(self.dropout)
        super().__post_init__()

    @nn.compact
    def __call__(self, images: Num[Array, "b ..."], train: bool = False) -> Float[Array, "b classes"]:
        """Logits of images [b, h, w, c] or [b, h·w·c], integers in 0..255 or floats in [0, 1]."""
        x = as_images(unit_range(images))
        for i, filters in enumerate(self.features, start=1):
            x = nn.relu(conv(filters, self.kernel_size, self.strides, self.padding, self.dtype, f"conv{i}")(x))
            x = MaxPool(self.pool, name=f"pool{i}")(x)
            require(
                min(x.shape[1:3]) > 0, f"nothing is left of the image after pool{i}; give fewer features, pool less"
            )
        x = Flatten(name="flatten")(x)
        for i, width in enumerate(self.dense, start=1):
            x = nn.relu(dense(width, self.dtype, f"dense{i}")(self._drop(x, i, train)))
        x = self._drop(x, len(self.dense) + 1, train)
        return dense(self.classes, "float32", "logits")(x)

    def _drop(self, x: Float[Array, "b n"], i: int, train: bool) -> Float[Array, "b n"]:
        return Dropout(self.dropout, name=f"dropout{i}")(x, train) if self.dropout else x


class SimpsonsCnn(Cnn, kw_only=True):
    """The network of the Simpsons study: four small convolutions, then four wide dense layers behind dropout.

    At 64x64x3 it has 1,337,296 parameters and 513 a class.
    """

    features: tuple[int, ...] = (8, 16, 32, 64)
    dense: tuple[int, ...] = (512, 512, 512, 512)
    classes: int
    dropout: float = 0.3
