"""Augmentations on the device. One is a frozen dataclass that maps `(key, image)` to an image of the same kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Int, Key, Num

from jaxclf.types import Array, require

Image = Num[Array, "h w c"]


@runtime_checkable
class Augmentation(Protocol):
    """What a config's `augment` lists: one image in, one image of the same shape and dtype out."""

    def __call__(self, key: Key[jax.Array, ""], image: Image) -> Image:
        """Change the image at random. The same key gives the same change."""
        ...


@dataclass(frozen=True)
class Shift:
    """Move the image by up to `pixels` up or down and left or right; what comes in is black."""

    pixels: int = 2
    """Largest shift along each axis, in pixels."""

    def __post_init__(self):
        require(self.pixels >= 0, f"pixels={self.pixels}: expected at least 0")

    def __call__(self, key: Key[jax.Array, ""], image: Image) -> Image:
        """A shifted image [h, w, c]."""
        p = self.pixels
        padded = jnp.pad(image, ((p, p), (p, p), (0, 0)))
        down, right = jax.random.randint(key, (2,), 0, 2 * p + 1)
        return jax.lax.dynamic_slice(padded, (down, right, 0), image.shape)


def augment_batch(
    augmentations: tuple[Augmentation, ...],
    key: Key[jax.Array, ""],
    positions: Int[Array, " b"],
    images: Num[Array, "b h w c"],
) -> Num[Array, "b h w c"]:
    """Apply every augmentation in turn. An image's randomness depends on its position in the batch alone."""

    def augment_one(position, image):
        example_key = jax.random.fold_in(key, position)
        for i, augmentation in enumerate(augmentations):
            image = augmentation(jax.random.fold_in(example_key, i), image)
        return image

    return jax.vmap(augment_one)(positions, images) if augmentations else images
