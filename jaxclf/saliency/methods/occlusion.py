"""Occlusion: the decrease of the score when a window of the image is replaced by the baseline."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from jaxclf.errors import require
from jaxclf.saliency.base import BaseMethod
from jaxclf.saliency.batching import map_over
from jaxclf.saliency.features import Features
from jaxclf.saliency.pixels import broadcast_to_channels, expand_along_axis, get_spatial_shape
from jaxclf.saliency.query import Attribution, Query, Scores, make_attribution
from jaxclf.types import Array


@dataclass(frozen=True)
class Occlusion(BaseMethod):
    """The decrease of the score when a window is replaced by the baseline, assigned to each pixel of the window.

    Windows start every `stride` pixels; the last one is cut at the border, so every pixel is in a window. All channels
    are replaced together and have the same value. Spatial axes are those between batch and channels; flat images have
    one. With the argument `features`, the regions that it gives are replaced instead of windows. It needs no gradients,
    and shows effects of pixels that are removed together.

    M. D. Zeiler, R. Fergus, "Visualizing and understanding convolutional networks" (2013), arXiv:1311.2901.
    """

    window: int | tuple[int, ...] = 4
    """Size of a window in pixels: one number for all spatial axes, or one per axis."""
    stride: int | tuple[int, ...] = 2
    """Distance between windows in pixels, at most their size: one number, or one per axis."""
    aggregate: Literal["sum", "mean"] = "sum"
    """How the decreases of all windows that contain a pixel are combined."""

    gradient_based = False
    removes_features = True

    def __post_init__(self):
        axes = [len(sides) for sides in (self.window, self.stride) if isinstance(sides, tuple)]
        for window, stride in self._expand_sides(max(axes, default=1)):
            require(window >= 1, f"window={self.window}: expected at least 1")
            require(
                1 <= stride <= window,
                f"stride={self.stride}: expected 1 to window={self.window}, so that every pixel is in a window",
            )

    def explain(self, query: Query) -> Attribution:
        """Explain a query with one forward pass per window, and one for the images."""
        query, score = query.resolve_targets()
        if query.features is not None:
            return _remove_features(query, query.features, score)
        images, sizes = query.images, get_spatial_shape(query.images)
        lines = [_mask_windows(size, *one) for size, one in zip(sizes, self._expand_sides(len(sizes)), strict=True)]

        def drop(numbers):
            inside = jnp.ones([1] * images.ndim, bool)
            for axis, line in enumerate(lines):
                inside &= expand_along_axis(jnp.asarray(line)[numbers[axis]], axis, images)
            return score - query.compute_scores(jnp.where(inside, query.baseline, images))

        counts = [len(line) for line in lines]
        numbers = jnp.asarray(np.indices(counts).reshape(len(counts), -1).T)
        drops = map_over(drop, numbers, query.points_per_call)
        values = self._sum_over_windows(drops.reshape(*counts, *score.shape), lines)
        return make_attribution(query, broadcast_to_channels(values, images), score, len(numbers) + 1)

    def _expand_sides(self, axes: int) -> list[tuple[int, int]]:
        """Return window and stride of each of the spatial axes."""
        sides = [side if isinstance(side, tuple) else (side,) * axes for side in (self.window, self.stride)]
        require(
            all(len(side) == axes for side in sides),
            f"window={self.window}, stride={self.stride}: expected {axes} of each, one per axis, or one for all",
        )
        return list(zip(*sides, strict=True))

    def _sum_over_windows(
        self, drops: Float[Array, "*windows b targets"], lines: list[np.ndarray]
    ) -> Float[Array, "b targets ..."]:
        # Windows are products of intervals, and so is the number of windows that contain a pixel: one axis at a time.
        for line in lines:
            share = line / line.sum(axis=0) if self.aggregate == "mean" else line
            drops = jnp.tensordot(
                drops, jnp.asarray(share, drops.dtype), axes=(0, 0), precision=jax.lax.Precision.HIGHEST
            )
        return drops


def _remove_features(query: Query, features: Features, score: Scores) -> Attribution:
    """Return the decrease of the scores without each of the features, at all its pixels."""
    images = query.images

    def drop(number):
        hidden = broadcast_to_channels(features.labels == number, images)
        return score - query.compute_scores(jnp.where(hidden, query.baseline, images))

    drops = map_over(drop, jnp.arange(features.count), query.points_per_call)
    values = features.repeat(jnp.moveaxis(drops, 0, -1), images)
    return make_attribution(query, values, score, features.count + 1)


def _mask_windows(size: int, window: int, stride: int) -> Bool[np.ndarray, "windows size"]:
    """Return a mask of the pixels of an axis that each window contains."""
    starts = np.arange(1 + ceil(max(size - window, 0) / stride))[:, None] * stride
    pixels = np.arange(size)[None]
    return (starts <= pixels) & (pixels < starts + window)
