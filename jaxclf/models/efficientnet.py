"""EfficientNet-Lite: inverted residual blocks without squeeze-and-excitation."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import flax.linen as nn
from jaxtyping import Float, Num

from jaxclf.errors import UserError, require
from jaxclf.models.conv_norm import HEAD_INIT, ConvNorm
from jaxclf.models.dropout import check_dropout
from jaxclf.models.dtypes import Dtype, get_parameter_dtype
from jaxclf.models.initializers import Normal, VarianceScaling
from jaxclf.models.layers import check_sizes, make_dense
from jaxclf.models.normalize import Normalize, prepare_images
from jaxclf.models.residual import add_branch, apply_dropout, compute_drop_path_rates
from jaxclf.types import Array

SIZES: dict[int, dict[str, Any]] = {
    0: {"depths": (1, 2, 2, 3, 3, 4, 1), "features": (16, 24, 40, 80, 112, 192, 320)},
    1: {"depths": (1, 3, 3, 4, 4, 5, 1), "features": (16, 24, 40, 80, 112, 192, 320)},
    2: {"depths": (1, 3, 3, 4, 4, 5, 1), "features": (16, 24, 48, 88, 120, 208, 352)},
    3: {"depths": (1, 3, 3, 5, 5, 6, 1), "features": (24, 32, 48, 96, 136, 232, 384)},
    4: {"depths": (1, 4, 4, 6, 6, 8, 1), "features": (24, 32, 56, 112, 160, 272, 448)},
}
DEPTHWISE_INIT = VarianceScaling(2.0, "fan_in", "normal")  # Each output has one channel of inputs.


class EfficientNetLite(nn.Module):
    """An EfficientNet-Lite: stages of inverted residual blocks with depthwise convolutions, then a linear layer.

    M. Tan, Q. V. Le, "EfficientNet" (2019), arXiv:1905.11946; without squeeze-and-excitation and with ReLU6, in the
    form of timm's `tf_efficientnet_lite0` to 4: padding as in TensorFlow, epsilon 1e-3. The stem halves the sides, and
    so does each stage with stride 2. Layers are `stem`, `stage1_block1` and so on, `top` and `logits`.
    """

    depths: tuple[int, ...]
    """Number of blocks of each stage."""
    features: tuple[int, ...]
    """Number of channels of each stage."""
    classes: int
    """Number of classes; 0: the model returns pooled features [b, top_features]."""
    kernel_sizes: tuple[int, ...] = (3, 3, 5, 3, 5, 5, 3)
    """Side of the filters of the depthwise convolutions of each stage, in pixels."""
    strides: tuple[int, ...] = (1, 2, 2, 2, 1, 2, 1)
    """Stride of the first block of each stage."""
    expansions: tuple[int, ...] = (1, 6, 6, 6, 6, 6, 6)
    """Channels of the depthwise convolutions over those of the input of a block, for each stage."""
    stem_features: int = 32
    """Number of filters of the first convolution."""
    top_features: int = 1280
    """Number of filters of the last convolution."""
    batch_norm_group: int | None = None
    """Examples that are normalized together; None: the whole batch."""
    dropout: float = 0.0
    """Dropout rate before the logits."""
    drop_path: float = 0.0
    """Rate at which the last block is skipped for an example. It grows from 0 linearly with the depth. Blocks that
    change the shape are never skipped."""
    kernel_init: Normal | VarianceScaling = VarianceScaling(2.0, "fan_out", "normal")
    """Initializer of the kernels of convolutions that are not depthwise."""
    normalize: Normalize | None = None
    """Applied to images in [0, 1]; None: nothing is."""
    dtype: Dtype = "float32"
    """Type of the activations. Parameters and logits are float32, or float64 if the activations are."""
    remat: bool = False
    """Compute the activations of blocks again in the backward pass instead of keeping them, to save memory."""

    names: ClassVar = dict(zip(SIZES, (224, 240, 260, 280, 300), strict=True))
    """Published networks, for `named`, and the side of their images in pixels."""

    def __post_init__(self):
        stages = ("depths", "features", "kernel_sizes", "strides", "expansions")
        lengths = [len(getattr(self, name)) for name in stages]
        require(
            len(set(lengths)) == 1 and lengths[0] > 0,
            f"{', '.join(stages)} have {lengths} stages: expected the same number for each",
        )
        for name in stages:
            check_sizes(**{f"{name}[{i}]": size for i, size in enumerate(getattr(self, name))})
        check_sizes(
            stem_features=self.stem_features, top_features=self.top_features,
            batch_norm_group=self.batch_norm_group or 1,
        )  # fmt: skip
        require(self.classes >= 0, f"classes={self.classes}: expected at least 0")
        check_dropout(self.dropout)
        check_dropout(self.drop_path, "drop_path")
        super().__post_init__()

    @classmethod
    def named(cls, name: int, classes: int, **changes: Any) -> EfficientNetLite:
        """Return a published network.

        Args:
            name: One of `EfficientNetLite.names`: 0 to 4, with 5, 5, 6, 8 and 13 million parameters, for images of
                224, 240, 260, 280 and 300 pixels a side.
            classes: Number of classes; 0: the network returns features.
            **changes: Other fields, such as `dropout`.

        Raises:
            UserError: If there is no such network.
        """
        if name not in cls.names:
            raise UserError(f"there is no EfficientNetLite {name!r}; choose from {', '.join(map(str, cls.names))}")
        return cls(classes=classes, **(SIZES[name] | changes))

    @property
    def layer_groups(self) -> tuple[tuple[str, ...], ...]:
        """The layers from the input to the head, each by the names of its modules, for layer-wise learning rates."""
        blocks = [(f"stage{i}_block{j}",) for i, depth in enumerate(self.depths, 1) for j in range(1, depth + 1)]
        return (("stem",), *blocks[:-1], (*blocks[-1], "top"), *((("logits",),) if self.classes else ()))

    @nn.compact
    def __call__(self, images: Num[Array, "b ..."], train: bool = False) -> Float[Array, "b n"]:
        """Compute logits.

        Args:
            images: Images [b, h, w, c] or [b, h·w·c]: integers from 0 to 255, or floats in [0, 1].
            train: Normalize with the statistics of the batch, and apply dropout and drop path, which need the random
                stream "dropout".

        Returns:
            Logits [b, classes], or features [b, top_features], float32.

        Raises:
            UserError: If the images have another shape.
        """
        kept = get_parameter_dtype(self.dtype)
        make_conv = partial(
            ConvNorm, batch_norm_group=self.batch_norm_group, epsilon=1e-3, kernel_init=self.kernel_init,
            dtype=self.dtype,
        )  # fmt: skip
        block = nn.remat(InvertedBlock, static_argnums=(2,)) if self.remat else InvertedBlock
        rates = iter(compute_drop_path_rates(self.drop_path, sum(self.depths)))
        x = prepare_images(images, self.normalize, self.dtype)
        x = nn.relu6(make_conv(self.stem_features, 3, 2, name="stem")(x, train))
        stages = zip(self.depths, self.features, self.kernel_sizes, self.strides, self.expansions, strict=True)
        for i, (depth, features, kernel_size, strides, expansion) in enumerate(stages, start=1):
            for j in range(1, depth + 1):
                x = block(
                    make_conv, features, kernel_size, strides if j == 1 else 1, expansion, next(rates), self.dtype,
                    name=f"stage{i}_block{j}",
                )(x, train)  # fmt: skip
        x = nn.relu6(make_conv(self.top_features, name="top")(x, train))
        x = apply_dropout(x.astype(kept).mean((1, 2)), self.dropout, "dropout", train)
        return make_dense(self.classes, kept, "logits", kernel_init=HEAD_INIT)(x) if self.classes else x


class InvertedBlock(nn.Module):
    """A 1 x 1 convolution to more channels, a depthwise one, and a 1 x 1 convolution; added to the input if it fits.

    M. Sandler et al., "MobileNetV2" (2018), arXiv:1801.04381.
    """

    make_conv: Callable[..., ConvNorm]
    """Makes a convolution with normalization from features, kernel size, strides and name."""
    features: int
    """Number of channels of the result."""
    kernel_size: int
    """Side of the filters of the depthwise convolution, in pixels."""
    strides: int
    """Stride of the depthwise convolution."""
    expansion: int
    """Channels of the depthwise convolution over those of the input; 1: there is no first convolution."""
    drop_path: float = 0.0
    """Rate at which the branch is dropped for an example."""
    dtype: Dtype = "float32"
    """Type of the activations."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h2 w2 features"]:
        """Transform activations.

        Args:
            x: Activations [b, h, w, c].
            train: Normalize with the statistics of the batch, and apply drop path, which needs the random stream
                "dropout".

        Returns:
            Activations [b, ceil(h / strides), ceil(w / strides), features].
        """
        branch, wide = x, self.expansion * x.shape[-1]
        if self.expansion > 1:
            branch = nn.relu6(self.make_conv(wide, name="expand")(x, train))
        depthwise = self.make_conv(
            wide, self.kernel_size, self.strides, groups=wide, kernel_init=DEPTHWISE_INIT, name="depthwise"
        )
        branch = self.make_conv(self.features, name="project")(nn.relu6(depthwise(branch, train)), train)
        if self.strides > 1 or x.shape[-1] != self.features:
            return branch
        return add_branch(x, branch, None, self.drop_path, self.dtype, train)
