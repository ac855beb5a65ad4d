"""Evaluation transforms: resizing, center crop and test-time augmentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp

from jaxclf.augment.base import Images, OutputImages, Shape
from jaxclf.augment.crops import check_size
from jaxclf.errors import require
from jaxclf.types import to_unit_range

TestTime = Literal["flip", "shifts"]
"""Views of an image whose logits are averaged in evaluation."""


@dataclass(frozen=True)
class CenterCrop:
    """Resize images and crop a square from their center, in evaluation and prediction."""

    size: int
    """Side of the square in pixels."""
    resize: int = 0
    """Length of the shorter side before the crop, resized bilinearly with antialiasing; 0: images are not resized."""

    def __post_init__(self):
        require(self.size >= 1, f"size={self.size}: expected at least 1")
        require(
            self.resize == 0 or self.resize >= self.size,
            f"resize={self.resize}: expected at least the size of the crop, {self.size}, or 0",
        )

    def output_shape(self, shape: Shape) -> Shape:
        """Return the shape of the crop."""
        check_size(min(self._resize_shape(shape)), self.size, shape)
        return self.size, self.size, shape[2]

    def __call__(self, images: Images) -> OutputImages:
        """Return crops [b, size, size, c]: floats in [0, 1] if images are resized, so that nothing is rounded."""
        self.output_shape(images.shape[1:])
        size = self._resize_shape(images.shape[1:])
        if size != images.shape[1:3]:
            shape = (images.shape[0], *size, images.shape[3])
            images = jax.image.resize(to_unit_range(images), shape, "linear", antialias=True)
        top, left = (round((side - self.size) / 2) for side in size)
        return images[:, top : top + self.size, left : left + self.size]

    def _resize_shape(self, shape: Shape) -> tuple[int, int]:
        """Return the height and width after resizing."""
        height, width, _ = shape
        if not self.resize:
            return height, width
        longer = self.resize * max(height, width) // min(height, width)
        return (longer, self.resize) if height > width else (self.resize, longer)


def compute_input_shape(transform: CenterCrop | None, shape: Sequence[int]) -> tuple[int, int, int]:
    """Return the shape of what a network sees in evaluation.

    Args:
        transform: The evaluation transform of the config.
        shape: Height, width and channels of the images of the dataset.

    Raises:
        UserError: If the images are too small.
    """
    height, width, channels = transform.output_shape(tuple(shape)) if transform else shape
    return height, width, channels


def transform_images(transform: CenterCrop | None, images: Images) -> OutputImages:
    """Return what a network sees of images of the dataset in evaluation."""
    return transform(images) if transform else images


def make_views(tta: TestTime | None, images: Images) -> list[tuple[float, Images]]:
    """Make the views of test-time augmentation, as in airbench (K. Jordan, 2024, arXiv:2404.00498).

    Args:
        tta: "flip": the images and their mirror images. "shifts": also both of the images shifted by one pixel up and
            left, and down and right, with the border reflected. None: the images alone.
        images: Images [b, h, w, c].

    Returns:
        Images with their weights, which add up to 1.
    """
    if tta is None:
        return [(1.0, images)]
    if tta == "flip":
        return [(0.5, images), (0.5, images[:, :, ::-1])]
    height, width = images.shape[1:3]
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), "reflect")
    shifted = (padded[:, i : i + height, i : i + width] for i in (0, 2))
    halves = [(0.5, images), *((0.25, each) for each in shifted)]
    return [(weight * part, view) for part, each in halves for weight, view in make_views("flip", each)]
