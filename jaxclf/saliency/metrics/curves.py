"""Curves of the score as pixels are removed or inserted in the order of their importance.

They measure the explained class; `score`, `max_rows` and `baseline` are as in the other faithfulness metrics.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, PyTree

from jaxclf.errors import require
from jaxclf.saliency.base import ScoreSpec, map_over_batch
from jaxclf.saliency.batching import map_over
from jaxclf.saliency.compiler import compile_with_static
from jaxclf.saliency.metrics.faithfulness import Baseline, Images, PixelValues, Targets
from jaxclf.saliency.pixels import replace_pixels, split_pixels, sum_channels
from jaxclf.saliency.query import Attribution, Model, Query, Score
from jaxclf.types import Array


class Curve(NamedTuple):
    """The score as pixels are removed or inserted."""

    curve: Float[Array, "b points"]
    """The score at each point."""
    auc: Float[Array, " b"]
    """The mean score: the area under the curve over the fraction of pixels."""


@compile_with_static("model", "steps", "score", "max_rows")
def insertion(
    model: Model,
    variables: PyTree,
    images: Images,
    a: Attribution,
    *,
    steps: int = 10,
    targets: Targets = None,
    baseline: Baseline = None,
    score: Score = "probability",
    max_rows: int | None = None,
) -> Curve:
    """Compute the score as pixels are inserted into the baseline, in descending order of importance.

    V. Petsiuk, A. Das, K. Saenko, "RISE" (2018), arXiv:1806.07421.

    Args:
        model: As in `Method.__call__`.
        variables: The variables of the model.
        images: Images [b, ...].
        a: Their attribution.
        steps: Number of steps, each with the same number of pixels.
        targets: The explained classes.
        baseline: The image into which pixels are inserted.
        score: The explained score.
        max_rows: Largest number of images per model call.

    Returns:
        The curve of `steps` + 1 points from the baseline to the image. A large area is good.

    Raises:
        UserError: If a number is out of range or shapes do not fit.
    """
    return _compute_curve(False, steps, model, variables, images, a, targets, baseline, ScoreSpec(score, max_rows))


@compile_with_static("model", "steps", "score", "max_rows")
def deletion(
    model: Model,
    variables: PyTree,
    images: Images,
    a: Attribution,
    *,
    steps: int = 10,
    targets: Targets = None,
    baseline: Baseline = None,
    score: Score = "probability",
    max_rows: int | None = None,
) -> Curve:
    """Compute the score as pixels are replaced by the baseline, in descending order of importance.

    V. Petsiuk, A. Das, K. Saenko, "RISE" (2018), arXiv:1806.07421.

    Args:
        model: As in `insertion`, like the other arguments.
        variables: The variables of the model.
        images: Images [b, ...].
        a: Their attribution.
        steps: Number of steps, each with the same number of pixels.
        targets: The explained classes.
        baseline: Replaces removed pixels.
        score: The explained score.
        max_rows: Largest number of images per model call.

    Returns:
        The curve of `steps` + 1 points from the image to the baseline. A small area is good.

    Raises:
        UserError: If a number is out of range or shapes do not fit.
    """
    return _compute_curve(True, steps, model, variables, images, a, targets, baseline, ScoreSpec(score, max_rows))


@compile_with_static("model", "steps", "score", "max_rows")
def srg(
    model: Model,
    variables: PyTree,
    images: Images,
    a: Attribution,
    *,
    steps: int = 10,
    targets: Targets = None,
    baseline: Baseline = None,
    score: Score = "probability",
    max_rows: int | None = None,
) -> Float[Array, " b"]:
    """Compute the symmetric relevance gain: the area between two deletion curves.

    In one curve the least important pixels are removed first, in the other one the most important pixels. The gain,
    AUC(least first) - AUC(most first), is also known as the area between perturbation curves (ABPC).

    S. Blücher, J. Vielhaben, N. Strodthoff, "Decoupling pixel flipping and occlusion strategy for consistent XAI
    benchmarks" (2024), arXiv:2401.06654.

    Args:
        model: As in `insertion`, like the other arguments.
        variables: The variables of the model.
        images: Images [b, ...].
        a: Their attribution.
        steps: Number of steps, each with the same number of pixels.
        targets: The explained classes.
        baseline: Replaces removed pixels.
        score: The explained score.
        max_rows: Largest number of images per model call.

    Returns:
        [b] in units of the score; large is good. The negated attribution has the negated gain, if no values are equal;
        a constant attribution has 0.

    Raises:
        UserError: If a number is out of range or shapes do not fit.
    """
    require(steps >= 2, f"steps={steps}: expected at least 2, as both curves have the same ends")
    values = split_pixels(a.values, images)
    counts = _count_pixels(values.shape[1], steps)

    def measure(query, values):
        query, _ = query.resolve_targets()
        # Without the ends of the curves, which cancel.
        most, least = (
            score_without(query, jnp.asarray(counts[1:-1]), lambda count, ranks=ranks: ranks < count)
            for ranks in (rank_pixels(values), rank_pixels(-values))
        )
        widths = jnp.asarray(counts[2:] - counts[:-2], most.dtype) / (2 * counts[-1])
        return jnp.sum(widths[None, None] * (least - most), axis=-1)

    spec = ScoreSpec(score, max_rows)
    return map_over_batch(measure, spec, model, variables, images, targets, baseline=baseline, extras=values)


def _compute_curve(
    delete: bool,
    steps: int,
    model: Model,
    variables: PyTree,
    images: Images,
    a: Attribution,
    targets: Targets,
    baseline: Baseline,
    spec: ScoreSpec,
) -> Curve:
    """Compute the scores with more and more of the most important pixels deleted, or only these inserted."""
    require(steps >= 1, f"steps={steps}: expected at least 1")
    values = split_pixels(a.values, images)
    counts = _count_pixels(values.shape[1], steps)

    def measure(query, values):
        query, _ = query.resolve_targets()
        ranks = rank_pixels(values)
        remove = (lambda count: ranks < count) if delete else (lambda count: ranks >= count)
        return score_without(query, jnp.asarray(counts), remove)

    curve = map_over_batch(measure, spec, model, variables, images, targets, baseline=baseline, extras=values)
    widths = jnp.asarray(np.diff(counts) / values.shape[1], curve.dtype)
    return Curve(curve, jnp.sum(widths[None] * (curve[:, 1:] + curve[:, :-1]) / 2, axis=1))


def _count_pixels(pixels: int, steps: int) -> Int[np.ndarray, " points"]:
    """Return how many pixels are removed at each point of a curve, from none to all."""
    return np.round(np.linspace(0, pixels, steps + 1)).astype(np.int32)


def score_without(
    query: Query, sets: Int[Array, " n"], remove: Callable[[Int[Array, ""]], Bool[Array, "b pixels"]]
) -> Float[Array, "b targets n"]:
    """Return the scores of images without sets of pixels, which are replaced by the baseline.

    Args:
        query: The examples, with their targets resolved.
        sets: The sets, as numbers.
        remove: Maps one of them to the pixels that are removed from each image.
    """

    def score(which):
        return query.compute_scores(replace_pixels(query.images, query.baseline, remove(which)))

    return jnp.moveaxis(map_over(score, sets, query.points_per_call), 0, -1)


def rank_pixels(values: PixelValues) -> Int[Array, "b pixels"]:
    """Return the rank of each pixel; the most important one has rank 0."""
    order = jnp.argsort(-sum_channels(values), axis=1, stable=True)
    return jnp.argsort(order, axis=1)
