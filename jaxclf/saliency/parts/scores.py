"""Scores S1 to S8 of what a saliency map gives to the parts of an image."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

from jaxclf.datasets.parts import PartsImage
from jaxclf.saliency.parts.maps import AttributedImage, draw_part_values, sum_over_parts
from jaxclf.saliency.parts.truth import Truth

RELEVANT = 0.05  # smallest share of the sum of absolute Shapley values that a relevant part has
SCORES: dict[str, str] = {
    "s1": "rank correlation with the drops: how much the logit falls without each part",
    "s2": "rank correlation with the Shapley values of the parts",
    "s3": "distance from the Shapley values, relative to their size; 0 is best",
    "s4": "the part with the largest sum has the largest Shapley value",
    "s4_regret": "Shapley value lost by that choice, relative to the range; 0 is best",
    "s5": "area under the ROC curve of relevant against irrelevant parts and clutter",
    "s6": "difference of the shares of the map outside the parts and of the logit due to the background; 0 is best",
    "s7": "rank correlation of the difference from the map of the rival class with the Shapley values of this contrast",
    "s8": "rank correlation of means over parts instead of sums with the Shapley values",
}
"""Scores by name, with their meaning. 1 is best where nothing else is stated."""
LOWER_IS_BETTER = ("s3", "s4_regret", "s6")


def score_attribution(values: AttributedImage, rival: AttributedImage, truth: Truth) -> dict[str, float]:
    """Score a map of an image.

    Args:
        values: The map of the image's character, summed over parts.
        rival: The map of the class with the largest other logit.
        truth: The truth.

    Returns:
        The scores by name. NaN where a score is not defined for the image, whatever the map.
    """
    size = np.abs(truth.shapley).sum() or np.nan  # if the parts change nothing, no score is defined
    chosen = values.parts == values.parts.max()  # several, if they are tied
    best = truth.shapley.max() if size > 0 else np.nan
    return {
        "s1": correlate_ranks(values.parts, truth.drops),
        "s2": correlate_ranks(values.parts, truth.shapley),
        "s3": float(np.abs(values.parts - truth.shapley).sum() / size),
        "s4": float((truth.shapley[chosen] == best).mean()) if size > 0 else float("nan"),
        "s4_regret": float((best - truth.shapley[chosen].mean()) / (np.ptp(truth.shapley) or 1.0)),
        "s5": _compute_relevance_auc(values, truth),
        "s6": float(abs(values.outside_share - truth.background_share)),
        "s7": correlate_ranks(values.parts - rival.parts, truth.contrast),
        "s8": correlate_ranks(values.parts / values.sizes, truth.shapley),
    }


def score_truth(image: PartsImage, truth: Truth) -> dict[str, float]:
    """Score maps with the right sums: for each score a map of the numbers that it compares with.

    Args:
        image: The image.
        truth: The truth.

    Returns:
        The scores by name, which are the best possible ones.
    """
    drops, shapley = draw_part_values(image, truth.drops), draw_part_values(image, truth.shapley, truth.clutter)
    contrast = draw_part_values(image, truth.contrast)
    means = draw_part_values(image, truth.shapley * image.masks.sum(axis=(1, 2)))
    honest = draw_part_values(image, truth.shapley, 0.0, truth.background)
    nothing = sum_over_parts(image, np.zeros_like(drops))
    maps = {"s1": drops, "s6": honest, "s7": contrast, "s8": means}
    return {
        name: score_attribution(sum_over_parts(image, maps.get(name, shapley)), nothing, truth)[name] for name in SCORES
    }


def correlate_ranks(values: Float[np.ndarray, " n"], truth: Float[np.ndarray, " n"]) -> float:
    """Return Spearman's rank correlation: 0.0 if the values are constant, NaN if the truth is."""
    if np.ptp(truth) == 0:
        return float("nan")
    if np.ptp(values) == 0:
        return 0.0
    return float(np.corrcoef(rankdata(values), rankdata(truth))[0, 1])


def average_defined(values: Float[np.ndarray, ...]) -> Float[np.ndarray, ...]:
    """Return means over the images for which a score is defined; NaN if it is for none."""
    counts = (~np.isnan(values)).sum(axis=0)
    return np.where(counts > 0, np.nansum(values, axis=0) / np.maximum(counts, 1), np.nan)


def _compute_relevance_auc(values: AttributedImage, truth: Truth) -> float:
    """Return the probability that a relevant part has more than another part or the clutter; a tie counts half."""
    items, contributions = values.parts, truth.shapley
    if values.clutter is not None:
        items, contributions = np.append(items, values.clutter), np.append(contributions, truth.clutter)
    size = np.abs(truth.shapley).sum()
    relevant = contributions >= RELEVANT * size
    if size == 0 or relevant.all() or not relevant.any():
        return float("nan")
    more = items[relevant][:, None] - items[~relevant]
    return float(((np.sign(more) + 1) / 2).mean())
