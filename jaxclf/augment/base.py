"""The protocol of augmentations, and how they are applied to a batch."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import jax
from jaxtyping import Int, Key, Num

from jaxclf.types import Array

Image = Num[Array, "h w c"]
Images = Num[Array, "b h w c"]


@runtime_checkable
class Augmentation(Protocol):
    """What a config's `augment` lists: one image in, one image of the same shape and dtype out."""

    def __call__(self, key: Key[jax.Array, ""], image: Image) -> Image:
        """Change the image at random. The same key gives the same change."""
        ...


def augment_batch(
    augmentations: tuple[Augmentation, ...],
    key: Key[jax.Array, ""],
    positions: Int[Array, " b"],
    images: Images,
) -> Images:
    """Apply every augmentation in turn. An image's randomness depends on its position in the batch alone."""

    def augment_one(position, image):
        example_key = jax.random.fold_in(key, position)
        for i, augmentation in enumerate(augmentations):
            image = augmentation(jax.random.fold_in(example_key, i), image)
        return image

    return jax.vmap(augment_one)(positions, images) if augmentations else images
