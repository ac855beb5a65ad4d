"""The protocol of augmentations, and their application to a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import jax
from jaxtyping import Int, Key, Num

from jaxclf.errors import require
from jaxclf.types import Array

Image = Num[Array, "h w c"]
Images = Num[Array, "b h w c"]
OutputImage = Num[Array, "h2 w2 c"]
OutputImages = Num[Array, "b h2 w2 c"]
Shape = tuple[int, ...]
"""Height, width and channels of an image."""


@runtime_checkable
class Augmentation(Protocol):
    """The protocol of augmentations. One that changes the size also declares it: see `Resizing`."""

    def __call__(self, key: Key[jax.Array, ""], image: Image) -> OutputImage:
        """Augment an image.

        Args:
            key: A random key. The same key gives the same result.
            image: An image [h, w, c]: integers from 0 to 255, or floats in [0, 1].

        Returns:
            An image of the same dtype, and of the same shape unless `output_shape` declares another one.
        """
        ...


@runtime_checkable
class Resizing(Protocol):
    """The protocol of what changes the size of images."""

    def output_shape(self, shape: Shape) -> Shape:
        """Return the shape of the result for images of a shape.

        Raises:
            UserError: If images of this shape are too small.
        """
        ...


def compute_output_shape(augmentations: Sequence[Augmentation], shape: Sequence[int]) -> Shape:
    """Return the shape of an image after augmentations.

    Args:
        augmentations: The augmentations, in order.
        shape: Height, width and channels of the image.

    Raises:
        UserError: If the image is too small for one of them.
    """
    shape = tuple(shape)
    for augmentation in augmentations:
        shape = augmentation.output_shape(shape) if isinstance(augmentation, Resizing) else shape
    return shape


def augment_batch(
    augmentations: tuple[Augmentation, ...],
    key: Key[jax.Array, ""],
    positions: Int[Array, " b"],
    images: Images,
) -> OutputImages:
    """Apply augmentations to the images of a batch, one after the other.

    Args:
        augmentations: The augmentations, in order.
        key: The random key of the step.
        positions: The position of each image in the whole batch. With the key it determines the result for the image.
        images: Images [b, h, w, c].

    Returns:
        Images of the same dtype; `compute_output_shape` gives their shape.

    Raises:
        UserError: If an augmentation returns a shape that it does not declare.
    """

    def augment_one(position, image):
        example_key = jax.random.fold_in(key, position)
        for i, augmentation in enumerate(augmentations):
            declared = compute_output_shape((augmentation,), image.shape)
            image = augmentation(jax.random.fold_in(example_key, i), image)
            require(
                image.shape == declared,
                f"{type(augmentation).__name__} returns an image {list(image.shape)} where {list(declared)} is "
                "declared: keep the shape, or give the class a method output_shape(shape) -> shape",
            )
        return image

    return jax.vmap(augment_one)(positions, images) if augmentations else images
