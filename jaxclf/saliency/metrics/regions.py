"""Faithfulness metrics that remove regions of pixels: cells of a grid, or groups of similar importance.

They measure the explained class; `score`, `max_rows` and `baseline` are as in the other faithfulness metrics.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, PyTree

from jaxclf.errors import UserError, require
from jaxclf.saliency.base import ScoreSpec, map_over_batch
from jaxclf.saliency.compiler import compile_with_static
from jaxclf.saliency.metrics.curves import rank_pixels, score_without
from jaxclf.saliency.metrics.faithfulness import Baseline, Images, PixelValues, Targets
from jaxclf.saliency.metrics.similarity import compute_rank_correlation
from jaxclf.saliency.pixels import infer_image_shape, split_pixels, sum_channels
from jaxclf.saliency.query import Attribution, Model, Score
from jaxclf.types import Array

Regions = Int[Array, "b pixels"]
"""The number of the region of each pixel."""


@compile_with_static("model", "cells", "score", "max_rows")
def irof(
    model: Model,
    variables: PyTree,
    images: Images,
    a: Attribution,
    *,
    cells: int = 4,
    targets: Targets = None,
    baseline: Baseline = None,
    score: Score = "probability",
    max_rows: int | None = None,
) -> Float[Array, " b"]:
    """Compute the iterative removal of features (IROF): the area over the curve of the score as cells are removed.

    The cells of a grid are removed one after the other, the one with the largest mean value first. The score is
    relative to that of the image. The paper removes superpixels; cells are the same for all images and models.

    L. Rieger, L. K. Hansen, "IROF: a low resource evaluation metric for explanation methods" (2020), arXiv:2003.08747.

    Args:
        model: As in `Method.__call__`.
        variables: The variables of the model.
        images: Images [b, h, w, c], or flat squares.
        a: Their attribution.
        cells: Number of cells along each side.
        targets: The explained classes.
        baseline: Replaces removed pixels; the paper uses the mean color.
        score: The explained score. Relative scores have a meaning only for scores that are positive.
        max_rows: Largest number of images per model call.

    Returns:
        [b]; large is good. 0 if the score never changes, at most 1 if it is positive.

    Raises:
        UserError: If flat images are not square, or there are more cells than pixels along a side.
    """
    values, grid = _divide(a, images, cells)

    def measure(query, values):
        query, first = query.resolve_targets()
        regions = jnp.broadcast_to(grid[None], values.shape[:2])
        means = _sum_regions(values, regions, cells**2) / np.bincount(grid)[None]
        ranks = jnp.take_along_axis(rank_pixels(means[..., None]), regions, axis=1)
        scores = score_without(query, jnp.arange(1, cells**2 + 1), lambda count: ranks < count)
        relative = scores / jnp.where(first == 0, 1, first)[..., None]
        # The trapezoid rule over the fraction of cells; the curve begins at 1.
        return 1 - (0.5 + relative.sum(axis=-1) - relative[..., -1] / 2) / cells**2

    spec = ScoreSpec(score, max_rows)
    return map_over_batch(measure, spec, model, variables, images, targets, baseline=baseline, extras=values)


@compile_with_static("model", "cells", "score", "max_rows")
def single_deletion(
    model: Model,
    variables: PyTree,
    images: Images,
    a: Attribution,
    *,
    cells: int = 4,
    targets: Targets = None,
    baseline: Baseline = None,
    score: Score = "logit",
    max_rows: int | None = None,
) -> Float[Array, " b"]:
    """Compute the rank correlation of the sums of values in the cells of a grid with the losses without each cell.

    It is the in-domain single deletion score (IDSDS) if the model was trained with one cell removed from half of the
    images, so that images without a cell are in its domain.

    R. Hesse, S. Schaub-Meyer, S. Roth, "Benchmarking the attribution quality of vision models" (2024),
    arXiv:2407.11910.

    Args:
        model: As in `Method.__call__`.
        variables: The variables of the model.
        images: Images [b, h, w, c], or flat squares.
        a: Their attribution.
        cells: Number of cells along each side.
        targets: The explained classes.
        baseline: Replaces the removed cell.
        score: The explained score.
        max_rows: Largest number of images per model call.

    Returns:
        [b] in [-1, 1], Spearman's correlation; 1 is best. 0 if the sums or the losses are constant.

    Raises:
        UserError: If flat images are not square, or there are more cells than pixels along a side.
    """
    values, grid = _divide(a, images, cells)

    def measure(query, values):
        query, first = query.resolve_targets()
        regions = jnp.broadcast_to(grid[None], values.shape[:2])
        scores = score_without(query, jnp.arange(cells**2), lambda cell: regions == cell)
        return compute_rank_correlation(_sum_regions(values, regions, cells**2)[:, None], first[..., None] - scores)

    spec = ScoreSpec(score, max_rows)
    return map_over_batch(measure, spec, model, variables, images, targets, baseline=baseline, extras=values)


@compile_with_static("model", "groups", "score", "max_rows")
def saco(
    model: Model,
    variables: PyTree,
    images: Images,
    a: Attribution,
    *,
    groups: int = 10,
    targets: Targets = None,
    baseline: Baseline = None,
    score: Score = "probability",
    max_rows: int | None = None,
) -> Float[Array, " b"]:
    """Compute the salience-guided faithfulness coefficient (SaCo).

    Pixels are divided by their rank into groups of the same size. A pair of groups counts with the difference of their
    sums of values: positive if the group with the larger sum has at least the same loss of the score when it is
    removed, negative otherwise.

    J. Wu et al., "On the faithfulness of vision transformer explanations" (2024), arXiv:2404.01415, algorithm 1.

    Args:
        model: As in `Method.__call__`.
        variables: The variables of the model.
        images: Images [b, ...].
        a: Their attribution.
        groups: Number of groups.
        targets: The explained classes.
        baseline: Replaces removed pixels; the paper uses the mean of each image.
        score: The explained score.
        max_rows: Largest number of images per model call.

    Returns:
        [b] in [-1, 1], the sum over pairs divided by the sum of absolute differences; 1 is best. 0 for a constant
        attribution.

    Raises:
        UserError: If a number is out of range or shapes do not fit.
    """
    values = split_pixels(a.values, images)
    pixels = values.shape[1]
    require(2 <= groups <= pixels, f"groups={groups}: expected 2 to {pixels}, the number of pixels")

    def measure(query, values):
        query, first = query.resolve_targets()
        regions = rank_pixels(values) * groups // pixels
        losses = first[..., None] - score_without(query, jnp.arange(groups), lambda group: regions == group)
        # Scaled first: the sums of small values would underflow.
        largest = jnp.abs(values).max(axis=(1, 2), keepdims=True)
        sums = _sum_regions(values / jnp.where(largest == 0, 1, largest), regions, groups)
        gaps = (sums[:, :, None] - sums[:, None, :])[:, None]
        # Each pair is counted once: where the first group has the larger sum.
        kept = losses[..., :, None] >= losses[..., None, :]
        weights = jnp.maximum(gaps, 0)
        total = weights.sum(axis=(2, 3))
        return jnp.where(kept, weights, -weights).sum(axis=(2, 3)) / jnp.where(total == 0, 1, total)

    spec = ScoreSpec(score, max_rows)
    return map_over_batch(measure, spec, model, variables, images, targets, baseline=baseline, extras=values)


def _divide(a: Attribution, images: Images, cells: int) -> tuple[PixelValues, Int[np.ndarray, " pixels"]]:
    """Return the values of each pixel, and the number of its cell in a grid."""
    shape = infer_image_shape(images.shape[1:])
    if shape is None:
        raise UserError(f"images of shape {list(images.shape)}: expected [b, h, w, c], or [b, n] of squares")
    height, width, _ = shape
    require(2 <= cells <= min(height, width), f"cells={cells}: expected 2 to {min(height, width)}, the shorter side")
    rows, columns = (np.arange(side) * cells // side for side in (height, width))
    values = split_pixels(a.values, images).reshape(images.shape[0], height * width, -1)
    return values, (rows[:, None] * cells + columns[None, :]).ravel()


def _sum_regions(values: PixelValues, regions: Regions, count: int) -> Float[Array, "b regions"]:
    """Return the sum of the values in each region."""
    add = jax.vmap(lambda values, regions: jnp.zeros(count, values.dtype).at[regions].add(values))
    return add(sum_channels(values), regions)
