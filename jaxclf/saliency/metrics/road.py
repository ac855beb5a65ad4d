"""Remove and debias: pixels are taken away without leaving a hole that the model could see."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.sparse.linalg import cg
from jaxtyping import Bool, Float

from jaxclf.errors import UserError, require
from jaxclf.saliency.attribution import Attribution
from jaxclf.saliency.base import Terms, ask
from jaxclf.saliency.batching import map_over
from jaxclf.saliency.compiler import compiled
from jaxclf.saliency.metrics.faithfulness import Curve, Images, Keys, Targets, ranks_of
from jaxclf.saliency.pixels import by_pixel, grid
from jaxclf.saliency.query import Score
from jaxclf.saliency.sampling import sample_keys
from jaxclf.types import Array, Variables

PERCENTAGES = tuple(range(1, 100, 2))


@compiled("model", "percentages", "noise", "score", "max_rows")
def road(
    model: Any,
    variables: Variables,
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
    """The score without the most important pixels, guessed from those around them: a small mean is good.

    The curve has a point for each of the percentages of the pixels, and `auc` is their mean. What is guessed gets
    Gaussian noise with the standard deviation `noise`, in [0, 1] units, so that it cannot be told by its smoothness.

    Images are [b, h, w, c], or flat squares; raises UserError for others.

    Y. Rong et al., "A consistent and efficient evaluation strategy for attribution methods" (2022), arXiv:2202.00449.
    """
    require(bool(percentages), "percentages=(): expected at least one")
    require(all(0 <= p <= 100 for p in percentages), f"percentages={percentages}: expected 0 to 100")
    size = grid(images.shape[1:])
    if size is None:
        raise UserError(f"images of shape {list(images.shape)}: expected [b, h, w, c], or [b, n] of squares")
    pixels = size[0] * size[1]
    values = by_pixel(a.values, images).reshape(images.shape[0], pixels, -1)
    counts = jnp.asarray(np.round(np.asarray(percentages) * pixels / 100).astype(np.int32))

    def question(query, values):
        query, _ = query.settled()
        ranks, shape = ranks_of(values), query.images.shape

        def at(j):
            gone = (ranks < counts[j]).reshape(-1, *size[:2])
            drawn = jax.vmap(lambda key: jax.random.normal(key, size, query.images.dtype))(sample_keys(query.keys, j))
            guessed = impute(query.images.reshape(-1, *size), gone)
            return query.scores(jnp.where(gone[..., None], guessed + noise * drawn, guessed).reshape(shape))

        scores = map_over(at, jnp.arange(len(percentages)), query.points_at_once)
        return jnp.moveaxis(scores, 0, -1)

    curve = ask(question, Terms(score, max_rows), model, variables, images, targets, key, given=values)
    return Curve(curve, curve.mean(axis=1))


def impute(images: Float[Array, "b h w c"], gone: Bool[Array, "b h w"]) -> Float[Array, "b h w c"]:
    """The images with every pixel that is gone the weighted mean of its eight neighbours, all of them at once.

    Neighbours at an edge weigh twice those at a corner; those outside the image are left out. An image that is gone
    altogether becomes zeros.
    """
    return jax.vmap(_impute)(images, gone)


def _impute(image: Float[Array, "h w c"], gone: Bool[Array, "h w"]) -> Float[Array, "h w c"]:
    hole = gone[:, :, None]
    weights = _around(jnp.ones_like(image))

    def equations(x):
        # Symmetric and positive: a weighted Laplacian of the pixels that are gone. The others stay zero.
        return jnp.where(hole, weights * x - _around(x), x)

    right = jnp.where(hole, _around(jnp.where(hole, 0, image)), 0)
    # Far below the noise that is added; an example stops by itself, whatever its neighbours in the batch do.
    return jnp.where(hole, cg(equations, right, tol=1e-6)[0], image)


def _around(x: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
    """The sum over neighbours: 1/6 of each at an edge, 1/12 of each at a corner, nothing outside.

    That is the product of (1, 2, 1) down and (1, 2, 1) across, less its centre, over 12.
    """
    h, w, _ = x.shape
    padded = jnp.pad(x, ((1, 1), (1, 1), (0, 0)))
    down = padded[:h] + 2 * padded[1:-1] + padded[2:]
    return (down[:, :w] + 2 * down[:, 1:-1] + down[:, 2:] - 4 * x) / 12
