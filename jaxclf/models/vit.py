"""Vision transformers."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from flax.linen.initializers import Initializer
from jaxtyping import Float, Num

from jaxclf.errors import UserError, require
from jaxclf.models.attention import Attention
from jaxclf.models.dropout import check_dropout
from jaxclf.models.dtypes import Dtype, get_parameter_dtype
from jaxclf.models.initializers import Normal, VarianceScaling
from jaxclf.models.layers import check_sizes, make_conv, make_dense
from jaxclf.models.normalize import Normalize, prepare_images
from jaxclf.models.positions import compute_sin_cos_positions, resize_positions
from jaxclf.models.residual import (
    MlpBlock,
    add_branch,
    apply_dropout,
    compute_drop_path_rates,
    make_layer_norm,
)
from jaxclf.types import Array

SIZES: dict[str, dict[str, Any]] = {
    "Ti": {"width": 192, "depth": 12, "heads": 3},
    "S": {"width": 384, "depth": 12, "heads": 6},
    "B": {"width": 768, "depth": 12, "heads": 12},
}

POSITIONS_INIT = Normal(0.02)


class Vit(nn.Module):
    """A vision transformer: embedded patches with positions, pre-norm transformer blocks, a linear layer.

    A. Dosovitskiy et al., "An Image is Worth 16x16 Words" (2021), arXiv:2010.11929. Mean pooling and 2-D sin-cos
    positions: L. Beyer et al., "Better plain ViT baselines for ImageNet-1k" (2022), arXiv:2205.01580. Layers are
    `patch_embedding`, `block1` to `block{depth}`, `norm` and `logits`.
    """

    patch: int
    """Side of a patch, in pixels."""
    width: int
    """Length of the vector of a token."""
    depth: int
    """Number of blocks."""
    heads: int
    """Number of attention heads. It divides the width."""
    classes: int
    """Number of classes; 0: the model returns pooled features [b, width]."""
    image_size: tuple[int, int] = (224, 224)
    """Height and width of the images that have a position of their own for each patch. For other sizes the positions
    are resized."""
    mlp_ratio: float = 4.0
    """Hidden units of the MLP of a block, over the width."""
    pool: Literal["class_token", "mean"] = "class_token"
    """What the logits are computed from: an additional token, or the mean of all tokens."""
    position_embedding: Literal["learned", "sin_cos"] = "learned"
    """Positions: trained vectors, or fixed ones from sines and cosines of row and column."""
    qk_norm: bool = False
    """Normalize the queries and keys of each head."""
    layer_scale: float | None = None
    """Initial factor of the residual branches, trained for each channel; None: no factor."""
    dropout: float = 0.0
    """Dropout rate after adding the positions, after attention, and after each dense layer of the MLPs."""
    attention_dropout: float = 0.0
    """Dropout rate of the attention weights."""
    drop_path: float = 0.0
    """Rate at which the last block is skipped for an example. It grows from 0 linearly with the depth."""
    kernel_init: Normal | VarianceScaling = VarianceScaling()
    """Initializer of the kernels. Positions and the class token are normal with standard deviation 0.02."""
    normalize: Normalize | None = None
    """Applied to images in [0, 1]; None: nothing is."""
    dtype: Dtype = "float32"
    """Type of the activations. Parameters and logits are float32, or float64 if the activations are."""
    remat: bool = False
    """Compute the activations of blocks again in the backward pass instead of keeping them, to save memory."""

    names: ClassVar = {f"{size}/16": 224 for size in SIZES}
    """Published networks, for `named`, and the side of their images in pixels."""

    def __post_init__(self):
        check_sizes(patch=self.patch, width=self.width, depth=self.depth, heads=self.heads)
        check_sizes(**{f"image_size[{i}]": side for i, side in enumerate(self.image_size)})
        require(self.classes >= 0, f"classes={self.classes}: expected at least 0")
        require(self.width % self.heads == 0, f"heads={self.heads} does not divide width={self.width}")
        self._check_sides(*self.image_size)
        require(
            self.position_embedding == "learned" or self.width % 4 == 0,
            f'width={self.width}: expected a multiple of 4 for position_embedding="sin_cos"',
        )
        check_sizes(**{"mlp_ratio * width": self._hidden})
        for name in ("dropout", "attention_dropout", "drop_path"):
            check_dropout(getattr(self, name), name)
        super().__post_init__()

    @classmethod
    def named(cls, name: str, classes: int, **changes: Any) -> Vit:
        """Return a published network.

        Args:
            name: One of `Vit.names`: "Ti/16", "S/16" or "B/16", with 5.7, 22 and 87 million parameters.
            classes: Number of classes; 0: the network returns features.
            **changes: Other fields, such as `image_size`.

        Raises:
            UserError: If there is no such network.
        """
        if name not in cls.names:
            raise UserError(f"there is no Vit {name!r}; choose from {', '.join(cls.names)}")
        size, patch = name.split("/")
        return cls(patch=int(patch), classes=classes, **(SIZES[size] | changes))

    @property
    def layer_groups(self) -> tuple[tuple[str, ...], ...]:
        """The layers from the input to the head, each by the names of its modules, for layer-wise learning rates."""
        blocks = [(f"block{i}",) for i in range(1, self.depth + 1)]
        head = (("logits",),) if self.classes else ()
        return (("patch_embedding", "class_token", "positions"), *blocks[:-1], (*blocks[-1], "norm"), *head)

    @nn.compact
    def __call__(self, images: Num[Array, "b ..."], train: bool = False) -> Float[Array, "b n"]:
        """Compute logits.

        Args:
            images: Images [b, h, w, c] or [b, h·w·c]: integers from 0 to 255, or floats in [0, 1]. Sides are multiples
                of `patch`.
            train: Apply dropout and drop path; this needs the random stream "dropout".

        Returns:
            Logits [b, classes], or features [b, width], float32.

        Raises:
            UserError: If the images have another shape.
        """
        x = self._embed(prepare_images(images, self.normalize, self.dtype))
        x = apply_dropout(x, self.dropout, "positions_dropout", train)
        block = nn.remat(VitBlock, static_argnums=(2,)) if self.remat else VitBlock
        for i, drop_path in enumerate(compute_drop_path_rates(self.drop_path, self.depth), start=1):
            x = block(
                self.heads, self._hidden, self.kernel_init, self.qk_norm, self.layer_scale, self.dropout,
                self.attention_dropout, drop_path, self.dtype, name=f"block{i}",
            )(x, train)  # fmt: skip
        x = make_layer_norm(self.dtype, "norm")(x)
        kept = get_parameter_dtype(self.dtype)
        features = jnp.asarray(x[:, 0] if self.pool == "class_token" else x.mean(1), kept)
        if not self.classes:
            return features
        return make_dense(self.classes, kept, "logits", kernel_init=self.kernel_init)(features)

    def _embed(self, images: Float[Array, "b h w c"]) -> Float[Array, "b n width"]:
        """Embed the patches in row-major order, after the class token if there is one, and add their positions."""
        self._check_sides(*images.shape[1:3])
        kept = get_parameter_dtype(self.dtype)
        x = make_conv(
            self.width, self.patch, self.patch, "VALID", self.dtype, "patch_embedding", kernel_init=self.kernel_init
        )(images)
        positions = self._make_positions()
        grid = positions[-self._grid[0] * self._grid[1] :].reshape(*self._grid, self.width)
        x = (x + resize_positions(grid, (x.shape[1], x.shape[2])).astype(self.dtype)[None]).reshape(
            x.shape[0], -1, self.width
        )
        if self.pool == "mean":
            return x
        token = self.param("class_token", POSITIONS_INIT, (self.width,), kept) + positions[0]
        return jnp.concatenate([jnp.broadcast_to(token.astype(self.dtype), (x.shape[0], 1, self.width)), x], axis=1)

    def _make_positions(self) -> Float[Array, "n width"]:
        """Return the positions of the class token, if there is one, and of the patches of images of `image_size`."""
        kept, others = get_parameter_dtype(self.dtype), int(self.pool == "class_token")
        if self.position_embedding == "learned":
            shape = (others + self._grid[0] * self._grid[1], self.width)
            return self.param("positions", POSITIONS_INIT, shape, kept)
        fixed = compute_sin_cos_positions(self._grid, self.width).reshape(-1, self.width)
        return jnp.asarray(np.pad(fixed, ((others, 0), (0, 0))), kept)

    @property
    def _grid(self) -> tuple[int, int]:
        return self.image_size[0] // self.patch, self.image_size[1] // self.patch

    @property
    def _hidden(self) -> int:
        return round(self.mlp_ratio * self.width)

    def _check_sides(self, height: int, width: int) -> None:
        require(
            height % self.patch == 0 and width % self.patch == 0 and min(height, width) > 0,
            f"images of {height} x {width} pixels: the sides must be multiples of patch={self.patch}",
        )


class VitBlock(nn.Module):
    """Self-attention and an MLP, each with layer normalization before it and added to its input."""

    heads: int
    """Number of attention heads."""
    hidden: int
    """Hidden units of the MLP."""
    kernel_init: Initializer
    """Initializer of the kernels."""
    qk_norm: bool = False
    """Normalize the queries and keys of each head."""
    layer_scale: float | None = None
    """Initial factor of the branches; None: no factor."""
    dropout: float = 0.0
    """Dropout rate after attention and after each dense layer."""
    attention_dropout: float = 0.0
    """Dropout rate of the attention weights."""
    drop_path: float = 0.0
    """Rate at which each branch is dropped for an example."""
    dtype: Dtype = "float32"
    """Type of the activations."""

    @nn.compact
    def __call__(self, x: Float[Array, "b n c"], train: bool) -> Float[Array, "b n c"]:
        """Transform tokens.

        Args:
            x: Tokens [b, n, c].
            train: Apply dropout and drop path; this needs the random stream "dropout".
        """
        attention = Attention(
            self.heads, self.kernel_init, self.qk_norm, self.attention_dropout, self.dropout, self.dtype,
            name="attention",
        )  # fmt: skip
        branch = attention(make_layer_norm(self.dtype, "norm1")(x), train)
        x = add_branch(x, branch, self.layer_scale, self.drop_path, self.dtype, train, suffix="1")
        mlp = MlpBlock(self.hidden, self.kernel_init, self.dropout, self.dtype, name="mlp")
        branch = mlp(make_layer_norm(self.dtype, "norm2")(x), train)
        return add_branch(x, branch, self.layer_scale, self.drop_path, self.dtype, train, suffix="2")
