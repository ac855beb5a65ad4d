"""Maxout networks with batch normalization."""

from __future__ import annotations

from functools import reduce
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float, Num

from jaxclf.errors import require
from jaxclf.models.batch_norm import BatchNorm
from jaxclf.models.dropout import Dropout, check_dropout
from jaxclf.models.dtypes import Dtype, get_parameter_dtype
from jaxclf.models.layers import (
    Flatten,
    check_sizes,
    make_conv,
    make_dense,
    reshape_to_images,
)
from jaxclf.types import Array, to_unit_range
from jaxclf.xla.space_to_depth import space_to_depth


class MaxoutCnn(nn.Module):
    """Stages of convolution, maxout and batch normalization, then dense layers with ReLU, then a linear layer.

    A stage can begin with space-to-depth: convolutions with few positions and many channels are faster.
    I. Goodfellow et al., "Maxout Networks" (2013), arXiv:1302.4389.
    """

    features: tuple[int, ...]
    """Number of channels of each stage, after its maxout."""
    kernel_sizes: tuple[int, ...]
    """Side of the filters of each stage, in blocks."""
    blocks: tuple[int, ...]
    """Block size of the space-to-depth at the beginning of each stage, in pixels (1: none)."""
    dense: tuple[int, ...]
    """Units of each dense layer before the logits."""
    classes: int
    """Number of classes."""
    pieces: int = 2
    """Number of filters over which each channel is the maximum."""
    padding: Literal["SAME", "VALID"] = "VALID"
    """Zero padding of the convolutions: SAME, or VALID (none)."""
    dropout: float = 0.0
    """Dropout rate before each dense layer and before the logits."""
    batch_norm_group: int | None = None
    """Examples that are normalized together; None: the whole batch."""
    dtype: Dtype = "float32"
    """Type of the activations. Parameters and logits are float32, or float64 if the activations are."""

    def __post_init__(self):
        lengths = [len(values) for values in (self.features, self.kernel_sizes, self.blocks)]
        require(
            len(set(lengths)) == 1,
            f"features, kernel_sizes and blocks have {lengths} stages: expected the same number for each",
        )
        check_sizes(pieces=self.pieces, classes=self.classes, batch_norm_group=self.batch_norm_group or 1)
        for name in ("features", "kernel_sizes", "blocks", "dense"):
            check_sizes(**{f"{name}[{i}]": size for i, size in enumerate(getattr(self, name))})
        check_dropout(self.dropout)
        super().__post_init__()

    @property
    def layer_groups(self) -> tuple[tuple[str, ...], ...]:
        """The layers from the input to the head, by the names of their modules."""
        stages = ((f"conv{i}", f"norm{i}") for i in range(1, len(self.features) + 1))
        dense = ((f"dense{i}", f"dense{i}_norm") for i in range(1, len(self.dense) + 1))
        return (*stages, *dense, ("logits",))

    @nn.compact
    def __call__(self, images: Num[Array, "b ..."], train: bool = False) -> Float[Array, "b classes"]:
        """Compute logits.

        Args:
            images: Images [b, h, w, c] or [b, h·w·c]: integers from 0 to 255, or floats in [0, 1].
            train: Normalize with the statistics of the batch, and apply dropout, which needs the random stream
                "dropout".

        Returns:
            Logits [b, classes], float32.

        Raises:
            UserError: If the images have another shape, or are too small for the stages.
        """
        x = reshape_to_images(to_unit_range(images, get_parameter_dtype(self.dtype)))
        for i, stage in enumerate(zip(self.features, self.kernel_sizes, self.blocks, strict=True), start=1):
            x = self._apply_stage(x, i, *stage, train)
            require(min(x.shape[1:3]) > 0, f"feature map is empty after conv{i}; use fewer or smaller stages")
        x = Flatten(name="flatten")(x)
        for i, width in enumerate(self.dense, start=1):
            # No bias here or in convolutions: the normalization would subtract it.
            x = make_dense(width, self.dtype, f"dense{i}", use_bias=False)(self._drop(x, i, train))
            x = nn.relu(self._normalize(x, f"dense{i}_norm", train))
        return make_dense(self.classes, get_parameter_dtype(self.dtype), "logits")(
            self._drop(x, len(self.dense) + 1, train)
        )

    def _apply_stage(
        self, x: Float[Array, "b h w c"], i: int, features: int, kernel_size: int, block: int, train: bool
    ):
        filters = features * self.pieces
        x = make_conv(filters, kernel_size, 1, self.padding, self.dtype, f"conv{i}", use_bias=False)(
            space_to_depth(x, block)
        )
        return self._normalize(Maxout(self.pieces, name=f"maxout{i}")(x), f"norm{i}", train)

    def _normalize(self, x: Float[Array, "b ..."], name: str, train: bool) -> Float[Array, "b ..."]:
        # Runs are short, so the running statistics average over about 10 steps only.
        return BatchNorm(self.batch_norm_group, momentum=0.9, dtype=self.dtype, name=name)(x, train)

    def _drop(self, x: Float[Array, "b n"], i: int, train: bool) -> Float[Array, "b n"]:
        return Dropout(self.dropout, name=f"dropout{i}")(x, train) if self.dropout else x


class Maxout(nn.Module):
    """The maximum of each group of `pieces` channels. The channels are split into `pieces` equal parts."""

    pieces: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c2"]:
        """Reduce [b, h, w, c] to [b, h, w, c / pieces]."""
        return reduce(jnp.maximum, jnp.split(x, self.pieces, axis=-1))
