"""Contributions of the parts of an image to a logit, from the logits of images with parts left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from PIL import Image

from jaxclf.datasets.parts import PartsImage
from jaxclf.saliency.parts.games import (
    compute_additive_share,
    compute_drops,
    compute_gains,
    compute_interactions,
    compute_shapley,
)

Predict = Callable[[np.ndarray], Float[np.ndarray, "n classes"]]
"""The logits of images [n, h, w, c]."""


@dataclass(frozen=True, eq=False)
class Truth:
    """Contributions of the parts of an image, in units of the logit of its character."""

    logits: Float[np.ndarray, "subsets classes"]
    """The logits for every subset of the parts. Subset s has part i if bit i of s is set."""
    rival: int
    """The class with the largest other logit."""
    drops: Float[np.ndarray, " parts"]
    """How much the logit falls without each part."""
    gains: Float[np.ndarray, " parts"]
    """How much each part alone adds to the image without parts."""
    shapley: Float[np.ndarray, " parts"]
    """Shapley values over all subsets of the parts."""
    interactions: Float[np.ndarray, "parts parts"]
    """Shapley interaction indices of pairs of parts."""
    contrast: Float[np.ndarray, " parts"]
    """Shapley values for the logit minus that of the rival."""
    additive_share: float
    """The share of the variance of the logit over all subsets that sums of one number per part explain."""
    clutter: float
    """How much the logit falls without the clutter."""
    background: float
    """Mean absolute change of the logit on other backgrounds."""
    correct: bool
    """True if the network classifies the image correctly."""

    @property
    def background_share(self) -> float:
        """The change due to the background, relative to that change and the absolute Shapley values; 0 without any."""
        total = self.background + np.abs(self.shapley).sum()
        return float(self.background / total) if total > 0 else 0.0


def compute_truth(image: PartsImage, predict: Predict, backgrounds: Sequence[Image.Image]) -> Truth:
    """Compute the truth for one image from the logits of every subset of its parts.

    Args:
        image: The image.
        predict: The logits of the network. Its classes are the characters, in their order.
        backgrounds: Canvases that replace the background.

    Returns:
        The truth. With n parts, 2^n + 1 + the number of backgrounds images are evaluated.
    """
    subsets, others = image.draw_subsets(), image.draw_on_backgrounds(backgrounds)
    images = np.concatenate([subsets, image.draw_without_clutter()[None], others])
    logits = np.asarray(predict(images), np.float64)
    whole = logits[len(subsets) - 1]
    rival = int(np.where(np.arange(len(whole)) == image.label, -np.inf, whole).argmax())
    values = logits[:, image.label]
    game = values[: len(subsets)]
    return Truth(
        logits=logits[: len(subsets)],
        rival=rival,
        drops=compute_drops(game),
        gains=compute_gains(game),
        shapley=compute_shapley(game),
        interactions=compute_interactions(game),
        contrast=compute_shapley(game - logits[: len(subsets), rival]),
        additive_share=compute_additive_share(game),
        clutter=float(game[-1] - values[len(subsets)]) if image.clutter.any() else 0.0,
        background=float(np.abs(values[len(subsets) + 1 :] - game[-1]).mean()),
        correct=bool(whole.argmax() == image.label),
    )
