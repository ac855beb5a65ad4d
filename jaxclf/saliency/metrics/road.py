"""Remove and debias (ROAD): pixels are removed without a hole that the model could detect."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.sparse.linalg import cg
from jaxtyping import Bool, Float, PyTree

from jaxclf.errors import UserError, require
from jaxclf.saliency.base import Keys, ScoreSpec, map_over_batch
from jaxclf.saliency.batching import map_over
from jaxclf.saliency.compiler import compile_with_static
from jaxclf.saliency.metrics.curves import Curve, rank_pixels
from jaxclf.saliency.metrics.faithfulness import Images, Targets
from jaxclf.saliency.pixels import infer_image_shape, split_pixels
from jaxclf.saliency.query import Attribution, Model, Score
from jaxclf.saliency.sampling import fold_sample_keys
from jaxclf.types import Array

PERCENTAGES = tuple(range(1, 100, 2))


@compile_with_static("model", "percentages", "noise", "score", "max_rows")
def road(
    model: Model,
    variables: PyTree,
    images: Images,
    a: Attribution,
    *,
    key: Keys,
    percentages: tuple[int | float, ...] = PERCENTAGES,
    noise: float = 0.01,
    targets: Targets = None,
    score: Score = "probability",
    max_rows: int | None = None,
) -> Curve:
    """Compute the score with the most important pixels imputed from their neighbors.

    Y. Rong et al., "A consistent and efficient evaluation strategy for attribution methods" (2022), arXiv:2202.00449.

    Args:
        model: As in `Method.__call__`.
        variables: The variables of the model.
        images: Images [b, h, w, c], or flat squares.
        a: Their attribution.
        key: One random key or [b], for the noise.
        percentages: Percentages of imputed pixels, one for each point of the curve.
        noise: Standard deviation of the Gaussian noise on imputed pixels, in [0, 1] units.
        targets: The explained classes.
        score: The explained score.
        max_rows: Largest number of images per model call.

    Returns:
        The curve, with its mean as `auc`. A small mean is good.

    Raises:
        UserError: If flat images are not square, or a percentage is out of range.
    """
    require(bool(percentages), "percentages=(): expected at least one")
    require(all(0 <= p <= 100 for p in percentages), f"percentages={percentages}: expected 0 to 100")
    size = infer_image_shape(images.shape[1:])
    if size is None:
        raise UserError(f"images of shape {list(images.shape)}: expected [b, h, w, c], or [b, n] of squares")
    pixels = size[0] * size[1]
    values = split_pixels(a.values, images).reshape(images.shape[0], pixels, -1)
    counts = jnp.asarray(np.round(np.asarray(percentages) * pixels / 100).astype(np.int32))

    def measure(query, values):
        query, _ = query.resolve_targets()
        ranks, shape = rank_pixels(values), query.images.shape

        def score_at(j):
            mask = (ranks < counts[j]).reshape(-1, *size[:2])
            draw = jax.vmap(lambda key: jax.random.normal(key, size, query.images.dtype))
            drawn = draw(fold_sample_keys(query.keys, j))
            imputed = impute(query.images.reshape(-1, *size), mask)
            return query.compute_scores(jnp.where(mask[..., None], imputed + noise * drawn, imputed).reshape(shape))

        scores = map_over(score_at, jnp.arange(len(percentages)), query.points_per_call)
        return jnp.moveaxis(scores, 0, -1)

    spec = ScoreSpec(score, max_rows)
    curve = map_over_batch(measure, spec, model, variables, images, targets, key, extras=values)
    return Curve(curve, curve.mean(axis=1))


def impute(images: Float[Array, "b h w c"], mask: Bool[Array, "b h w"]) -> Float[Array, "b h w c"]:
    """Replace every pixel under the mask by the weighted mean of its eight neighbors, for all pixels at once.

    Direct neighbors weigh twice as much as diagonal ones; those outside the image do not count. An image that is
    entirely under the mask becomes zeros.
    """
    return jax.vmap(_impute)(images, mask)


def _impute(image: Float[Array, "h w c"], mask: Bool[Array, "h w"]) -> Float[Array, "h w c"]:
    hole = mask[:, :, None]
    weights = _sum_neighbors(jnp.ones_like(image))

    def equations(x):
        # Symmetric and positive definite, as `cg` needs: a weighted Laplacian of the hole. Other pixels stay zero.
        return jnp.where(hole, weights * x - _sum_neighbors(x), x)

    right = jnp.where(hole, _sum_neighbors(jnp.where(hole, 0, image)), 0)
    # The tolerance is far below the noise. vmap stops each example by itself, so neighbors in the batch do not matter.
    return jnp.where(hole, cg(equations, right, tol=1e-6)[0], image)


def _sum_neighbors(x: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
    """Sum the neighbors of each pixel: 1/6 of direct ones, 1/12 of diagonal ones, nothing outside the image."""
    # The product of (1, 2, 1) down and (1, 2, 1) across, minus its center, over 12.
    h, w, _ = x.shape
    padded = jnp.pad(x, ((1, 1), (1, 1), (0, 0)))
    down = padded[:h] + 2 * padded[1:-1] + padded[2:]
    return (down[:, :w] + 2 * down[:, 1:-1] + down[:, 2:] - 4 * x) / 12
