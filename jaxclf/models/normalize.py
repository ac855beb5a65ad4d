"""Standardization of the channels of images inside a model."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Float, Num

from jaxclf.errors import require
from jaxclf.models.dtypes import Dtype, get_parameter_dtype
from jaxclf.models.layers import reshape_to_images
from jaxclf.types import Array, to_unit_range


@dataclass(frozen=True)
class Normalize:
    """Subtracts a mean from each channel of images in [0, 1] and divides by a standard deviation."""

    mean: tuple[float, ...]
    """Mean of each channel, in units of [0, 1]."""
    std: tuple[float, ...]
    """Standard deviation of each channel."""

    def __post_init__(self):
        require(
            len(self.mean) == len(self.std) > 0,
            f"mean has {len(self.mean)} values and std {len(self.std)}: expected one per channel",
        )
        require(min(self.std) > 0, f"std={self.std}: expected values above 0")

    def __call__(self, images: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Normalize images.

        Args:
            images: Images [b, h, w, c] in [0, 1].

        Raises:
            UserError: If the images have another number of channels.
        """
        channels = images.shape[-1]
        require(
            channels == len(self.mean),
            f"images have {channels} channels, but normalize has {len(self.mean)} means; give one mean and std per "
            "channel, or normalize=None",
        )
        mean, std = (jnp.asarray(values, images.dtype).reshape(1, 1, 1, -1) for values in (self.mean, self.std))
        return (images - mean) / std


IMAGENET = Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""Mean and standard deviation of the training images of ImageNet."""


def prepare_images(images: Num[Array, "b ..."], normalize: Normalize | None, dtype: Dtype) -> Float[Array, "b h w c"]:
    """Convert the input of a model to normalized images.

    Args:
        images: Images [b, h, w, c], or [b, h·w·c] of squares: integers from 0 to 255, or floats in [0, 1].
        normalize: Applied to the images in [0, 1]; None: nothing is.
        dtype: Type of the activations of the model. Integers become float32, or float64 if the activations are.
    """
    unit = reshape_to_images(to_unit_range(images, get_parameter_dtype(dtype)))
    return normalize(unit) if normalize else unit
