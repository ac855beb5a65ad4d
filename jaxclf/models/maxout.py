"""Maxout networks: little work an image for what they reach, so they hold the time to 99 % (configs/mnist_fast.py)."""

from __future__ import annotations

from functools import reduce
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float, Num

from jaxclf.errors import require
from jaxclf.models.layers import Dropout, Dtype, Flatten, as_images, check_dropout, check_sizes, conv, dense
from jaxclf.types import Array, unit_range
from jaxclf.xla.convolutions import stack_blocks


class MaxoutCnn(nn.Module):
    """Stages of convolution, maxout and batch normalisation, then dense layers with ReLU, then the logits.

    A stage may begin by stacking blocks of pixels as channels: a convolution of few places and many channels is the
    faster one. I. Goodfellow et al., "Maxout Networks" (2013), arXiv:1302.4389.
    """

    features: tuple[int, ...]
    """Channels of each stage, behind its maxout."""
    kernel_sizes: tuple[int, ...]
    """Side of each stage's filters, in blocks."""
    blocks: tuple[int, ...]
    """Side in pixels of the blocks that each stage stacks first; 1 stacks none. A rest at the edge is left out."""
    dense: tuple[int, ...]
    """Width of each dense layer before the logits."""
    classes: int
    """Number of logits."""
    pieces: int = 2
    """Filters of which a channel is the largest."""
    padding: Literal["SAME", "VALID"] = "VALID"
    """Zeros around the image: SAME keeps the side, VALID has none."""
    dropout: float = 0.0
    """Share dropped in training before each dense layer and before the logits."""
    dtype: Dtype = "float32"
    """What activations are computed in; parameters and logits are float32."""

    def __post_init__(self):
        lengths = [len(values) for values in (self.features, self.kernel_sizes, self.blocks)]
        require(
            len(set(lengths)) == 1, f"features, kernel_sizes and blocks have {lengths} stages: expected as many of each"
        )
        check_sizes(pieces=self.pieces, classes=self.classes)
        for name in ("features", "kernel_sizes", "blocks", "dense"):
            check_sizes(**{f"{name}[{i}]": size for i, size in enumerate(getattr(self, name))})
        check_dropout(self.dropout)
        super().__post_init__()

    @nn.compact
    def __call__(self, images: Num[Array, "b ..."], train: bool = False) -> Float[Array, "b classes"]:
        """Logits of images [b, h, w, c] or [b, h·w·c], integers in 0..255 or floats in [0, 1]."""
        x = as_images(unit_range(images))
        for i, stage in enumerate(zip(self.features, self.kernel_sizes, self.blocks, strict=True), start=1):
            x = self._stage(x, i, *stage, train)
            require(min(x.shape[1:3]) > 0, f"nothing is left of the image after conv{i}; give fewer or smaller stages")
        x = Flatten(name="flatten")(x)
        for i, width in enumerate(self.dense, start=1):
            # No bias here, nor in convolutions: the normalisation would take it off again.
            x = dense(width, self.dtype, f"dense{i}", use_bias=False)(self._drop(x, i, train))
            x = nn.relu(self._normalize(x, f"dense{i}_norm", train))
        return dense(self.classes, "float32", "logits")(self._drop(x, len(self.dense) + 1, train))

    def _stage(self, x: Float[Array, "b h w c"], i: int, features: int, kernel_size: int, block: int, train: bool):
        filters = features * self.pieces
        x = conv(filters, kernel_size, 1, self.padding, self.dtype, f"conv{i}", use_bias=False)(stack_blocks(x, block))
        return self._normalize(Maxout(self.pieces, name=f"maxout{i}")(x), f"norm{i}", train)

    def _normalize(self, x: Float[Array, "b ..."], name: str, train: bool) -> Float[Array, "b ..."]:
        # Runs are short: a longer memory than 10 steps would remember networks long gone.
        return nn.BatchNorm(use_running_average=not train, momentum=0.9, dtype=self.dtype, name=name)(x)

    def _drop(self, x: Float[Array, "b n"], i: int, train: bool) -> Float[Array, "b n"]:
        return Dropout(self.dropout, name=f"dropout{i}")(x, train) if self.dropout else x


class Maxout(nn.Module):
    """The largest of `pieces` channels, those a `pieces`-th of all channels apart."""

    pieces: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c2"]:
        """Channels to a `pieces`-th of them."""
        return reduce(jnp.maximum, jnp.split(x, self.pieces, axis=-1))
