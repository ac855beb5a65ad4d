"""How images of any size get the size of a dataset or a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from PIL import Image


@dataclass(frozen=True)
class Resizing:
    """How images are resized, with antialiasing where they become smaller."""

    crop_to_aspect_ratio: bool = False
    """Resize images until they cover the size and crop the center, instead of distorting them."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """Interpolation between pixels."""

    def __call__(self, image: Image.Image, image_size: tuple[int, int]) -> Image.Image:
        """Return an image of a height and width."""
        height, width = image_size
        box = compute_crop(image.size, (width, height)) if self.crop_to_aspect_ratio else None
        return image.resize((width, height), Image.Resampling[self.interpolation.upper()], box)


def compute_crop(size: tuple[int, int], target: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return the left, upper, right and lower edge of the largest part in the center with the aspect ratio of `target`.

    Args:
        size: Width and height of the image.
        target: Width and height that have the aspect ratio.
    """
    scale = min(size[0] / target[0], size[1] / target[1])
    width, height = min(scale * target[0], size[0]), min(scale * target[1], size[1])  # rounding must not exceed them
    left, top = (size[0] - width) / 2, (size[1] - height) / 2
    return left, top, min(left + width, size[0]), min(top + height, size[1])
