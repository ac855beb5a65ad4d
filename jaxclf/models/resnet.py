"""Residual networks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Literal

import flax.linen as nn
from jaxtyping import Float, Num

from jaxclf.errors import UserError, require
from jaxclf.models.conv_norm import HEAD_INIT, ConvNorm
from jaxclf.models.dropout import check_dropout
from jaxclf.models.dtypes import Dtype, get_parameter_dtype
from jaxclf.models.initializers import Normal, VarianceScaling
from jaxclf.models.layers import MaxPool, check_sizes, make_dense
from jaxclf.models.normalize import Normalize, prepare_images
from jaxclf.models.residual import add_branch, compute_drop_path_rates
from jaxclf.types import Array

SIZES: dict[int, dict[str, Any]] = {
    18: {"block": "basic", "depths": (2, 2, 2, 2)},
    34: {"block": "basic", "depths": (3, 4, 6, 3)},
    50: {"block": "bottleneck", "depths": (3, 4, 6, 3)},
    101: {"block": "bottleneck", "depths": (3, 4, 23, 3)},
}


class ResNet(nn.Module):
    """A residual network: a stem, stages of residual blocks, mean pooling, a linear layer.

    K. He et al., "Deep Residual Learning for Image Recognition" (2015), arXiv:1512.03385, in the form of torchvision:
    strides are in the 3 x 3 convolutions. The first stage has `width` channels, or 4 times as many with bottlenecks.
    Each further stage doubles the channels and halves the sides. The scale of the last normalization of a block is
    initialized with zeros: P. Goyal et al. (2017), arXiv:1706.02677. Layers are `stem`, `pool`, `stage1_block1` and so
    on, and `logits`.
    """

    depths: tuple[int, ...]
    """Number of blocks of each stage."""
    classes: int
    """Number of classes; 0: the model returns pooled features [b, c]."""
    block: Literal["basic", "bottleneck"] = "basic"
    """Two 3 x 3 convolutions; or 1 x 1, 3 x 3, and 1 x 1 with four times as many filters."""
    width: int = 64
    """Number of filters of the 3 x 3 convolutions of the first stage."""
    stem: Literal["imagenet", "cifar"] = "imagenet"
    """7 x 7 convolution with stride 2 and max-pooling with stride 2; or, for small images, 3 x 3 convolution."""
    norm: Literal["batch", "group"] = "batch"
    """Batch normalization; or group normalization with standardized kernels, which needs no statistics of the batch:
    A. Kolesnikov et al., "Big Transfer" (2020), arXiv:1912.11370."""
    batch_norm_group: int | None = None
    """Examples that are normalized together in batch normalization; None: the whole batch."""
    drop_path: float = 0.0
    """Rate at which the last block is skipped for an example. It grows from 0 linearly with the depth."""
    kernel_init: Normal | VarianceScaling = VarianceScaling(2.0, "fan_out", "normal")
    """Initializer of the kernels of convolutions."""
    normalize: Normalize | None = None
    """Applied to images in [0, 1]; None: nothing is."""
    dtype: Dtype = "float32"
    """Type of the activations. Parameters and logits are float32, or float64 if the activations are."""
    remat: bool = False
    """Compute the activations of blocks again in the backward pass instead of keeping them, to save memory."""

    names: ClassVar = dict.fromkeys(SIZES, 224)
    """Published networks, for `named`, and the side of their images in pixels."""

    def __post_init__(self):
        require(len(self.depths) > 0, "depths=(): expected at least one stage")
        check_sizes(width=self.width, batch_norm_group=self.batch_norm_group or 1)
        check_sizes(**{f"depths[{i}]": depth for i, depth in enumerate(self.depths)})
        require(self.classes >= 0, f"classes={self.classes}: expected at least 0")
        check_dropout(self.drop_path, "drop_path")
        super().__post_init__()

    @classmethod
    def named(cls, name: int, classes: int, **changes: Any) -> ResNet:
        """Return a published network.

        Args:
            name: One of `ResNet.names`: 18, 34, 50 or 101, with 12, 22, 26 and 45 million parameters.
            classes: Number of classes; 0: the network returns features.
            **changes: Other fields, such as `batch_norm_group`.

        Raises:
            UserError: If there is no such network.
        """
        if name not in cls.names:
            raise UserError(f"there is no ResNet {name!r}; choose from {', '.join(map(str, cls.names))}")
        return cls(classes=classes, **(SIZES[name] | changes))

    @property
    def layer_groups(self) -> tuple[tuple[str, ...], ...]:
        """The layers from the input to the head, each by the names of its modules, for layer-wise learning rates."""
        blocks = [(f"stage{i}_block{j}",) for i, depth in enumerate(self.depths, 1) for j in range(1, depth + 1)]
        return (("stem",), *blocks, *((("logits",),) if self.classes else ()))

    @nn.compact
    def __call__(self, images: Num[Array, "b ..."], train: bool = False) -> Float[Array, "b n"]:
        """Compute logits.

        Args:
            images: Images [b, h, w, c] or [b, h·w·c]: integers from 0 to 255, or floats in [0, 1].
            train: Normalize with the statistics of the batch, and apply drop path, which needs the random stream
                "dropout".

        Returns:
            Logits [b, classes], or features [b, c] of the last stage, float32.

        Raises:
            UserError: If the images have another shape.
        """
        kept = get_parameter_dtype(self.dtype)
        make_conv = partial(
            ConvNorm, padding="symmetric", norm=self.norm, batch_norm_group=self.batch_norm_group,
            kernel_init=self.kernel_init, dtype=self.dtype,
        )  # fmt: skip
        block = nn.remat(ResNetBlock, static_argnums=(2,)) if self.remat else ResNetBlock
        rates = iter(compute_drop_path_rates(self.drop_path, sum(self.depths)))
        kernel_size, strides = (7, 2) if self.stem == "imagenet" else (3, 1)
        x = prepare_images(images, self.normalize, self.dtype)
        x = nn.relu(make_conv(self.width, kernel_size, strides, name="stem")(x, train))
        if self.stem == "imagenet":
            x = MaxPool(3, stride=2, padding=1, name="pool")(x)
        for i, depth in enumerate(self.depths):
            for j in range(depth):
                x = block(
                    make_conv, self.width * 2**i, self.block == "bottleneck", 2 if i > 0 and j == 0 else 1,
                    next(rates), self.dtype, name=f"stage{i + 1}_block{j + 1}",
                )(x, train)  # fmt: skip
        x = x.astype(kept).mean((1, 2))
        return make_dense(self.classes, kept, "logits", kernel_init=HEAD_INIT)(x) if self.classes else x


class ResNetBlock(nn.Module):
    """Convolutions whose result is added to the input, or to a projection of it where the shape changes."""

    make_conv: Callable[..., ConvNorm]
    """Makes a convolution with normalization from features, kernel size, strides and name."""
    width: int
    """Number of filters of the 3 x 3 convolutions."""
    bottleneck: bool
    """1 x 1, 3 x 3, and 1 x 1 with four times as many filters, instead of two 3 x 3 convolutions."""
    strides: int
    """Stride of the first 3 x 3 convolution and of the projection."""
    drop_path: float = 0.0
    """Rate at which the branch is dropped for an example."""
    dtype: Dtype = "float32"
    """Type of the activations."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h2 w2 c2"]:
        """Transform activations.

        Args:
            x: Activations [b, h, w, c].
            train: Normalize with the statistics of the batch, and apply drop path, which needs the random stream
                "dropout".

        Returns:
            Activations [b, ceil(h / strides), ceil(w / strides), width], or 4 width with a bottleneck.
        """
        features, convs = self.width, [(self.width, 3, self.strides), (self.width, 3, 1)]
        if self.bottleneck:
            features = 4 * self.width
            convs = [(self.width, 1, 1), (self.width, 3, self.strides), (features, 1, 1)]
        branch = x
        for i, conv in enumerate(convs, start=1):
            branch = nn.relu(branch) if i > 1 else branch
            scale_init = nn.initializers.zeros if i == len(convs) else nn.initializers.ones
            branch = self.make_conv(*conv, scale_init=scale_init, name=f"conv{i}")(branch, train)
        if self.strides > 1 or x.shape[-1] != features:
            x = self.make_conv(features, 1, self.strides, name="shortcut")(x, train)
        return nn.relu(add_branch(x, branch, None, self.drop_path, self.dtype, train))
