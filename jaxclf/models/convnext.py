"""ConvNeXt: convolutional networks with the block structure of transformers."""

from __future__ import annotations

from typing import Any, ClassVar

import flax.linen as nn
from flax.linen.initializers import Initializer
from jaxtyping import Float, Num

from jaxclf.errors import UserError, require
from jaxclf.models.dropout import check_dropout
from jaxclf.models.dtypes import Dtype, get_parameter_dtype
from jaxclf.models.initializers import Normal, VarianceScaling
from jaxclf.models.layers import check_sizes, make_conv, make_dense
from jaxclf.models.normalize import Normalize, prepare_images
from jaxclf.models.residual import MlpBlock, add_branch, compute_drop_path_rates, make_layer_norm
from jaxclf.types import Array

SIZES: dict[str, dict[str, Any]] = {
    "atto": {"depths": (2, 2, 6, 2), "features": (40, 80, 160, 320)},
    "femto": {"depths": (2, 2, 6, 2), "features": (48, 96, 192, 384)},
    "pico": {"depths": (2, 2, 6, 2), "features": (64, 128, 256, 512)},
    "nano": {"depths": (2, 2, 8, 2), "features": (80, 160, 320, 640)},
    "T": {"depths": (3, 3, 9, 3), "features": (96, 192, 384, 768)},
    "S": {"depths": (3, 3, 27, 3), "features": (96, 192, 384, 768)},
    "B": {"depths": (3, 3, 27, 3), "features": (128, 256, 512, 1024)},
}


class ConvNext(nn.Module):
    """A ConvNeXt: stages of residual blocks with depthwise convolutions, mean pooling, a linear layer.

    Z. Liu et al., "A ConvNet for the 2020s" (2022), arXiv:2201.03545; atto to nano are those of timm. The sides of the
    maps are those of the images over 4 in the first stage, and half as long in each further one. Layers are `stem`,
    `stage1_block1` and so on, `stage2_downsample` and so on, `norm` and `logits`.
    """

    depths: tuple[int, ...]
    """Number of blocks of each stage."""
    features: tuple[int, ...]
    """Number of channels of each stage."""
    classes: int
    """Number of classes; 0: the model returns pooled features [b, c]."""
    kernel_size: int = 7
    """Side of the filters of the depthwise convolutions, in pixels."""
    layer_scale: float | None = 1e-6
    """Initial factor of the residual branches, trained for each channel; None: no factor."""
    drop_path: float = 0.0
    """Rate at which the last block is skipped for an example. It grows from 0 linearly with the depth."""
    kernel_init: Normal | VarianceScaling = Normal(0.02)
    """Initializer of the kernels."""
    normalize: Normalize | None = None
    """Applied to images in [0, 1]; None: nothing is."""
    dtype: Dtype = "float32"
    """Type of the activations. Parameters and logits are float32, or float64 if the activations are."""
    remat: bool = False
    """Compute the activations of blocks again in the backward pass instead of keeping them, to save memory."""

    names: ClassVar = dict.fromkeys(SIZES, 224)
    """Published networks, for `named`, and the side of their images in pixels."""

    def __post_init__(self):
        require(
            len(self.depths) == len(self.features) > 0,
            f"depths and features have {[len(self.depths), len(self.features)]} stages: expected the same number",
        )
        check_sizes(kernel_size=self.kernel_size)
        for name in ("depths", "features"):
            check_sizes(**{f"{name}[{i}]": size for i, size in enumerate(getattr(self, name))})
        require(self.classes >= 0, f"classes={self.classes}: expected at least 0")
        check_dropout(self.drop_path, "drop_path")
        super().__post_init__()

    @classmethod
    def named(cls, name: str, classes: int, **changes: Any) -> ConvNext:
        """Return a published network.

        Args:
            name: One of `ConvNext.names`: "atto", "femto", "pico", "nano", "T", "S" or "B", with 3.7 to 89 million
                parameters.
            classes: Number of classes; 0: the network returns features.
            **changes: Other fields, such as `drop_path`.

        Raises:
            UserError: If there is no such network.
        """
        if name not in cls.names:
            raise UserError(f"there is no ConvNext {name!r}; choose from {', '.join(cls.names)}")
        return cls(classes=classes, **(SIZES[name] | changes))

    @property
    def layer_groups(self) -> tuple[tuple[str, ...], ...]:
        """The layers from the input to the head, each by the names of its modules, for layer-wise learning rates."""
        blocks = [
            ((f"stage{i}_downsample",) if i > 1 and j == 1 else ()) + (f"stage{i}_block{j}",)
            for i, depth in enumerate(self.depths, start=1)
            for j in range(1, depth + 1)
        ]
        head = (("logits",),) if self.classes else ()
        return (("stem",), *blocks[:-1], (*blocks[-1], "norm"), *head)

    @nn.compact
    def __call__(self, images: Num[Array, "b ..."], train: bool = False) -> Float[Array, "b n"]:
        """Compute logits.

        Args:
            images: Images [b, h, w, c] or [b, h·w·c]: integers from 0 to 255, or floats in [0, 1].
            train: Apply drop path; this needs the random stream "dropout".

        Returns:
            Logits [b, classes], or features [b, c] of the last stage, float32.

        Raises:
            UserError: If the images have another shape, or are too small for the number of stages.
        """
        kept = get_parameter_dtype(self.dtype)
        block = nn.remat(ConvNextBlock, static_argnums=(2,)) if self.remat else ConvNextBlock
        rates = iter(compute_drop_path_rates(self.drop_path, sum(self.depths)))
        x = prepare_images(images, self.normalize, self.dtype)
        smallest = 2 ** (len(self.depths) + 1)
        require(
            min(x.shape[1:3]) >= smallest,
            f"images of {x.shape[1]} x {x.shape[2]} pixels are too small for {len(self.depths)} stages; use fewer "
            f"stages, or images of at least {smallest} x {smallest} pixels",
        )
        for i, (depth, features) in enumerate(zip(self.depths, self.features, strict=True), start=1):
            name = "stem" if i == 1 else f"stage{i}_downsample"
            x = Downsample(features, 4 if i == 1 else 2, i > 1, self.kernel_init, self.dtype, name=name)(x)
            for j in range(1, depth + 1):
                x = block(
                    self.kernel_size, self.kernel_init, self.layer_scale, next(rates), self.dtype,
                    name=f"stage{i}_block{j}",
                )(x, train)  # fmt: skip
        x = make_layer_norm(kept, "norm")(x.astype(kept).mean((1, 2)))
        return make_dense(self.classes, kept, "logits", kernel_init=self.kernel_init)(x) if self.classes else x


class Downsample(nn.Module):
    """A convolution of patches that do not overlap, with layer normalization before or after it."""

    features: int
    """Number of channels of the result."""
    patch: int
    """Side of a patch, in pixels."""
    norm_first: bool
    """Normalize before the convolution."""
    kernel_init: Initializer
    """Initializer of the kernel."""
    dtype: Dtype = "float32"
    """Type of the activations."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 features"]:
        """Reduce [b, h, w, c] to [b, h // patch, w // patch, features]."""
        norm = make_layer_norm(self.dtype, "norm")
        conv = make_conv(
            self.features, self.patch, self.patch, "VALID", self.dtype, "conv", kernel_init=self.kernel_init
        )
        return conv(norm(x)) if self.norm_first else norm(conv(x))


class ConvNextBlock(nn.Module):
    """A depthwise convolution, layer normalization and an MLP of the channels, added to the input."""

    kernel_size: int
    """Side of the filters, in pixels."""
    kernel_init: Initializer
    """Initializer of the kernels."""
    layer_scale: float | None = 1e-6
    """Initial factor of the branch; None: no factor."""
    drop_path: float = 0.0
    """Rate at which the branch is dropped for an example."""
    dtype: Dtype = "float32"
    """Type of the activations."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h w c"]:
        """Transform activations [b, h, w, c].

        Args:
            x: Activations.
            train: Apply drop path; this needs the random stream "dropout".
        """
        channels = x.shape[-1]
        branch = make_conv(
            channels, self.kernel_size, 1, "SAME", self.dtype, "conv", groups=channels, kernel_init=self.kernel_init
        )(x)
        branch = make_layer_norm(self.dtype, "norm")(branch)
        branch = MlpBlock(4 * channels, self.kernel_init, dtype=self.dtype, name="mlp")(branch, train)
        return add_branch(x, branch, self.layer_scale, self.drop_path, self.dtype, train)
