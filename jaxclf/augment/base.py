"""The protocol of augmentations, and their application to a batch."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import jax
from jaxtyping import Int, Key, Num

from jaxclf.types import Array

Image = Num[Array, "h w c"]
Images = Num[Array, "b h w c"]


@runtime_checkable
class Augmentation(Protocol):
    """The protocol of augmentations."""

    def __call__(self, key: Key[jax.Array, ""], image: Image) -> Image:
        """Augment an image.

        Args:
            key: A random key. The same key gives the same result.
            image: An image [h, w, c]: integers from 0 to 255, or floats in [0, 1].

        Returns:
            An image of the same shape and dtype.
        """
        ...


def augment_batch(
    augmentations: tuple[Augmentation, ...],
    key: Key[jax.Array, ""],
    positions: Int[Array, " b"],
    images: Images,
) -> Images:
    """Apply augmentations to the images of a batch, one after the other.

    Args:
        augmentations: The augmentations, in order.
        key: The random key of the step.
        positions: The position of each image in the whole batch. With the key it determines the result for the image.
        images: Images [b, h, w, c].

    Returns:
        Images of the same shape and dtype.
    """

    def augment_one(position, image):
        example_key = jax.random.fold_in(key, position)
        for i, augmentation in enumerate(augmentations):
            image = augmentation(jax.random.fold_in(example_key, i), image)
        return image

    return jax.vmap(augment_one)(positions, images) if augmentations else images
