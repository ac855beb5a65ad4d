"""Convolutional networks: convolution, ReLU and pooling, then dense layers."""

from __future__ import annotations

from typing import Literal

import flax.linen as nn
from jaxtyping import Float, Num

from jaxclf.errors import require
from jaxclf.models.dropout import Dropout, check_dropout
from jaxclf.models.dtypes import Dtype, get_parameter_dtype
from jaxclf.models.layers import (
    Flatten,
    MaxPool,
    check_sizes,
    make_conv,
    make_dense,
    reshape_to_images,
)
from jaxclf.types import Array, to_unit_range


class Cnn(nn.Module):
    """Stages of convolution, ReLU and max-pooling, then dense layers with ReLU, then a linear layer."""

    features: tuple[int, ...]
    """Number of filters of each convolution."""
    dense: tuple[int, ...]
    """Units of each dense layer before the logits."""
    classes: int
    """Number of classes."""
    kernel_size: int = 3
    """Side K of the filters, in pixels."""
    strides: int = 1
    """Stride S of the convolutions. A side W becomes (W - K + 2P)/S + 1."""
    padding: Literal["SAME", "VALID"] | int = "SAME"
    """Zero padding: SAME, VALID (none), or the number P of pixels on each side."""
    pool: int = 2
    """Window and stride of the max-pooling, in pixels."""
    dropout: float = 0.0
    """Dropout rate before each dense layer and before the logits."""
    dtype: Dtype = "float32"
    """Type of the activations. Parameters and logits are float32, or float64 if the activations are."""

    def __post_init__(self):
        check_sizes(kernel_size=self.kernel_size, strides=self.strides, pool=self.pool, classes=self.classes)
        check_sizes(**{f"features[{i}]": filters for i, filters in enumerate(self.features)})
        check_sizes(**{f"dense[{i}]": width for i, width in enumerate(self.dense)})
        require(isinstance(self.padding, str) or self.padding >= 0, f"padding={self.padding}: expected at least 0")
        check_dropout(self.dropout)
        super().__post_init__()

    @property
    def layer_groups(self) -> tuple[tuple[str, ...], ...]:
        """The layers from the input to the head, by the names of their modules."""
        convolutions = ((f"conv{i}",) for i in range(1, len(self.features) + 1))
        dense = ((f"dense{i}",) for i in range(1, len(self.dense) + 1))
        return (*convolutions, *dense, ("logits",))

    @nn.compact
    def __call__(self, images: Num[Array, "b ..."], train: bool = False) -> Float[Array, "b classes"]:
        """Compute logits.

        Args:
            images: Images [b, h, w, c] or [b, h·w·c]: integers from 0 to 255, or floats in [0, 1].
            train: Apply dropout; this needs the random stream "dropout".

        Returns:
            Logits [b, classes], float32.

        Raises:
            UserError: If the images have another shape, or are too small for the number of stages.
        """
        x = reshape_to_images(to_unit_range(images, get_parameter_dtype(self.dtype)))
        for i, filters in enumerate(self.features, start=1):
            x = nn.relu(make_conv(filters, self.kernel_size, self.strides, self.padding, self.dtype, f"conv{i}")(x))
            x = MaxPool(self.pool, name=f"pool{i}")(x)
            require(min(x.shape[1:3]) > 0, f"feature map is empty after pool{i}; use fewer stages or a smaller pool")
        x = Flatten(name="flatten")(x)
        for i, width in enumerate(self.dense, start=1):
            x = nn.relu(make_dense(width, self.dtype, f"dense{i}")(self._drop(x, i, train)))
        x = self._drop(x, len(self.dense) + 1, train)
        return make_dense(self.classes, get_parameter_dtype(self.dtype), "logits")(x)

    def _drop(self, x: Float[Array, "b n"], i: int, train: bool) -> Float[Array, "b n"]:
        return Dropout(self.dropout, name=f"dropout{i}")(x, train) if self.dropout else x


class SimpsonsCnn(Cnn, kw_only=True):
    """The network of the Simpsons study: four convolutions, then four dense layers with dropout.

    For images [64, 64, 3] it has 1,337,296 parameters and 513 per class.
    """

    features: tuple[int, ...] = (8, 16, 32, 64)
    dense: tuple[int, ...] = (512, 512, 512, 512)
    classes: int
    dropout: float = 0.3
