"""Saliency maps summed over the parts of an image, and maps with known sums."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from PIL import Image
from scipy.ndimage import sobel

from jaxclf.datasets.parts import PartsImage
from jaxclf.saliency.parts.truth import Predict

Map = Float[np.ndarray, "_ _"]
"""The values of pixels, summed over channels."""


@dataclass(frozen=True, eq=False)
class AttributedImage:
    """What a saliency map gives to the parts of an image."""

    parts: Float[np.ndarray, " parts"]
    """The sum of the values in the mask of each part."""
    sizes: Float[np.ndarray, " parts"]
    """Number of pixels of each part."""
    clutter: float | None
    """The sum of the values of the clutter outside of all parts; None if there is none."""
    total: float
    """The sum of all absolute values."""
    outside_share: float
    """The share of the absolute values that is outside of all parts; that of the area for a map of zeros."""


def sum_over_parts(image: PartsImage, values: Map) -> AttributedImage:
    """Sum a map over the parts of an image.

    Args:
        image: The image.
        values: The values of its pixels, or of the places of a class activation map, which is resized bilinearly.
            Values that are not finite count as 0: an image is not left out because a method fails on it.

    Returns:
        The sums.
    """
    values = resize_map(np.nan_to_num(values, posinf=0, neginf=0), image.outside.shape)
    outside = image.outside
    total = np.abs(values).sum()
    share = np.abs(values[outside]).sum() / total if total > 0 else outside.mean()
    parts = np.array([values[mask].sum() for mask in image.masks])
    sizes = image.masks.sum(axis=(1, 2)).astype(float)
    clutter = image.clutter & outside
    in_clutter = float(values[clutter].sum()) if clutter.any() else None
    return AttributedImage(parts, sizes, in_clutter, float(total), float(share))


def resize_map(values: Map, shape: tuple[int, ...]) -> Map:
    """Return a map in the size of the image, interpolated bilinearly."""
    if values.shape == shape:
        return values.astype(np.float64)
    height, width = shape
    resized = Image.fromarray(values.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized, np.float64)


def draw_part_values(
    image: PartsImage, values: Float[np.ndarray, " parts"], clutter: float = 0.0, background: float = 0.0
) -> Map:
    """Draw a map with a given sum over each part, spread evenly over the pixels of the part.

    Args:
        image: The image.
        values: A value for each part.
        clutter: The sum over the clutter.
        background: The sum over all other pixels.

    Returns:
        The map.
    """
    outside = image.outside
    regions = [*zip(image.masks, values, strict=True)]
    regions += [(image.clutter & outside, clutter), (outside & ~image.clutter, background)]
    drawn = np.zeros(outside.shape)
    for mask, value in regions:
        drawn[mask] = value / max(mask.sum(), 1)
    return drawn


def draw_noise(image: PartsImage, stream: int) -> Map:
    """Return normal noise of mean zero, the same in every call; each stream is independent of the others."""
    return np.random.default_rng([image.label, image.number, stream]).standard_normal(image.outside.shape)


def draw_area(image: PartsImage, stream: int) -> Map:
    """Return ones, whose sum over a part is its size."""
    return np.ones(image.outside.shape)


def draw_edges(image: PartsImage, stream: int) -> Map:
    """Return the size of the brightness gradient, by Sobel filters."""
    gray = image.pixels.mean(axis=-1)
    return np.hypot(sobel(gray, axis=0), sobel(gray, axis=1))


REFERENCES = {"random": draw_noise, "area": draw_area, "edges": draw_edges}
"""Maps that know nothing of the network, by name: functions of an image and the number of the map."""


def occlude_parts(image: PartsImage, predict: Predict, classes: Sequence[int]) -> list[Map]:
    """Compute how much logits fall if the pixels of a part are black.

    Args:
        image: The image.
        predict: The logits of the network.
        classes: The explained classes.

    Returns:
        A map for each class, whose sum over a part is the fall of the logit.
    """
    occluded = np.where(image.masks[..., None], np.uint8(0), image.pixels[None])
    logits = np.asarray(predict(np.concatenate([image.pixels[None], occluded])), np.float64)
    return [draw_part_values(image, logits[0, c] - logits[1:, c]) for c in classes]
