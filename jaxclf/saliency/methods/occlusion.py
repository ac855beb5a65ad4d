"""What the score loses when a part of the image is covered."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from jaxclf.errors import require
from jaxclf.saliency.attribution import Attribution
from jaxclf.saliency.base import BaseMethod
from jaxclf.saliency.batching import map_over
from jaxclf.saliency.query import Query, attribution
from jaxclf.saliency.space import along, on_channels, space
from jaxclf.types import Array


@dataclass(frozen=True)
class Occlusion(BaseMethod):
    """What the score loses when a window is covered by the baseline, given to each of the window's pixels.

    Windows start every stride pixels; the last one is cut at the edge, so that every pixel is covered. All channels are
    covered together and have the same value. Flat images have one axis, and others those between batch and channels.

    M. D. Zeiler, R. Fergus, "Visualizing and understanding convolutional networks" (2013), arXiv:1311.2901.
    """

    window: int | tuple[int, ...] = 4
    """Sides of a window in pixels: one for all axes, or one for each."""
    stride: int | tuple[int, ...] = 2
    """Pixels from one window to the next, at most a window's side."""
    aggregate: Literal["sum", "mean"] = "sum"
    """What a pixel has of the windows that cover it."""

    def __post_init__(self):
        axes = [len(sides) for sides in (self.window, self.stride) if isinstance(sides, tuple)]
        for window, stride in self._windows(max(axes, default=1)):
            require(window >= 1, f"window={self.window}: expected at least 1")
            require(
                1 <= stride <= window,
                f"stride={self.stride}: expected 1 to window={self.window}, as pixels between windows have no value",
            )

    def explain(self, query: Query) -> Attribution:
        """One score a window, and that of the image."""
        query, score = query.settled()
        images, sizes = query.images, space(query.images)
        lines = [covered(size, *one) for size, one in zip(sizes, self._windows(len(sizes)), strict=True)]

        def drop(numbers):
            inside = jnp.ones([1] * images.ndim, bool)
            for axis, line in enumerate(lines):
                inside &= along(jnp.asarray(line)[numbers[axis]], axis, images)
            return score - query.scores(jnp.where(inside, query.baseline, images))

        counts = [len(line) for line in lines]
        numbers = jnp.asarray(np.indices(counts).reshape(len(counts), -1).T)
        drops = map_over(drop, numbers, query.points_at_once)
        values = self._spread(drops.reshape(*counts, *score.shape), lines)
        return attribution(query, on_channels(values, images), score, len(numbers) + 1)

    def _windows(self, axes: int) -> list[tuple[int, int]]:
        """Window and stride of each axis."""
        sides = [side if isinstance(side, tuple) else (side,) * axes for side in (self.window, self.stride)]
        require(
            all(len(side) == axes for side in sides),
            f"window={self.window}, stride={self.stride}: expected {axes} of each, one an axis, or one for all",
        )
        return list(zip(*sides, strict=True))

    def _spread(self, drops: Float[Array, "*windows b heads"], lines: list[np.ndarray]) -> Float[Array, "b heads ..."]:
        # A window is the product of its sides, and so is the number of windows over a pixel: axis by axis.
        for line in lines:
            share = line / line.sum(axis=0) if self.aggregate == "mean" else line
            drops = jnp.tensordot(
                drops, jnp.asarray(share, drops.dtype), axes=(0, 0), precision=jax.lax.Precision.HIGHEST
            )
        return drops


def covered(size: int, window: int, stride: int) -> Bool[np.ndarray, "windows size"]:
    """Which pixels of an axis each window covers."""
    starts = np.arange(1 + ceil(max(size - window, 0) / stride))[:, None] * stride
    pixels = np.arange(size)[None]
    return (starts <= pixels) & (pixels < starts + window)
