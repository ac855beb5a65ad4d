"""The mean score of images seen through random masks."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, Key

from jaxclf.errors import require
from jaxclf.saliency.attribution import Attribution
from jaxclf.saliency.base import BaseMethod
from jaxclf.saliency.query import Query, attribution
from jaxclf.saliency.sampling import moments_over, sample_keys
from jaxclf.saliency.space import on_channels, space
from jaxclf.types import Array


@dataclass(frozen=True)
class Rise(BaseMethod):
    """The mean score of the image behind random masks, weighted for each pixel by how much of it was seen.

    A mask is a coarse random grid, enlarged smoothly and moved by less than a cell, each mask of each example by
    itself; what it hides is the baseline. Channels share it. Masks are `probability` on average, by which values are
    divided. The standard error is that of the mean over masks.

    V. Petsiuk, A. Das, K. Saenko, "RISE" (2018), arXiv:1806.07421.
    """

    samples: int = 4000
    """Masks an example."""
    grid: int = 7
    """Cells along each axis of space; flat images have one axis."""
    probability: float = 0.5
    """Share of the cells that are seen."""

    sampled = True

    def __post_init__(self):
        require(self.samples >= 2, f"samples={self.samples}: expected at least 2")
        require(self.grid >= 2, f"grid={self.grid}: expected at least 2; one cell shows all or nothing")
        require(0 < self.probability <= 1, f"probability={self.probability}: expected more than 0, at most 1")

    def explain(self, query: Query) -> Attribution:
        """One score a mask, and that of the image."""
        query, score = query.settled()
        images, way = query.images, query.images - query.baseline
        draw = jax.vmap(lambda key: random_mask(key, space(images), self.grid, self.probability))

        def sample(j):
            masks = draw(sample_keys(query.keys, j))
            scores = query.scores(query.baseline + on_channels(masks, images) * way)
            return jnp.einsum("bk,b...->bk...", scores, masks) / self.probability

        moments = moments_over(sample, self.samples, query.points_at_once)
        return attribution(
            query, on_channels(moments.mean, images), score, self.samples + 1, on_channels(moments.stderr, images)
        )


def random_mask(key: Key[Array, ""], sizes: tuple[int, ...], grid: int, probability: float) -> Float[Array, ...]:
    """How much of each pixel is seen, from 0 to 1: `probability` on average, everywhere."""
    of_cells, of_shift = jax.random.split(key)
    cells = [ceil(size / grid) for size in sizes]
    shifts = jax.random.randint(of_shift, (len(sizes),), 0, jnp.asarray(cells))
    mask = jax.random.bernoulli(of_cells, probability, (grid,) * len(sizes)).astype(jnp.float32)
    for size, cell, shift in zip(sizes, cells, shifts, strict=True):
        # The first axis of cells becomes the last one of pixels; after all of them they are in order again.
        mask = jnp.tensordot(mask, _enlarge(size, grid, cell, shift), axes=(0, 1), precision=jax.lax.Precision.HIGHEST)
    return mask


def _enlarge(size: int, grid: int, cell: int, shift: Int[Array, ""]) -> Float[Array, "size grid"]:
    """Bilinear weights of the cells for each pixel, where `grid` cells span one more than the image, and are moved."""
    scale = grid / ((grid + 1) * cell)
    centres = jnp.clip((shift + jnp.arange(size) + 0.5) * scale - 0.5, 0, grid - 1)
    return jnp.maximum(0, 1 - jnp.abs(centres[:, None] - jnp.arange(grid)[None]))
