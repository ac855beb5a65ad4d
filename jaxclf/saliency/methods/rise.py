"""RISE: the mean score of randomly masked images."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, Key

from jaxclf.errors import require
from jaxclf.saliency.base import BaseMethod
from jaxclf.saliency.pixels import broadcast_to_channels, get_spatial_shape
from jaxclf.saliency.query import Attribution, Query, make_attribution
from jaxclf.saliency.sampling import check_tolerance, compute_moments, fold_sample_keys
from jaxclf.types import Array


@dataclass(frozen=True)
class Rise(BaseMethod):
    """RISE: the mean score of randomly masked images, weighted for each pixel by the mask's value there.

    A mask is a coarse random grid of zeros and ones, upsampled bilinearly and shifted by less than a cell, drawn for
    each example and sample; it is shared by the channels. Where it is 0 the baseline is shown. Values are divided by
    `probability`, the mean of the masks, and are mean scores: they are not 0 where pixels have no effect.

    It needs no gradients, and many forward passes.

    V. Petsiuk, A. Das, K. Saenko, "RISE: randomized input sampling for explanation of black-box models" (2018),
    arXiv:1806.07421.
    """

    samples: int = 4000
    """Number of masks per example; with a tolerance, the largest number."""
    grid: int = 7
    """Number of grid cells along each spatial axis; flat images have one axis."""
    probability: float = 0.5
    """Probability that a cell is visible."""
    tolerance: float | None = None
    """Stop as soon as no pixel's standard error is more than this times the largest absolute value of the map, checked
    after every 16 masks. Has no reverse-mode derivative. None: take all samples."""

    sampled = True

    gradient_based = False

    def __post_init__(self):
        require(self.samples >= 2, f"samples={self.samples}: expected at least 2")
        require(self.grid >= 2, f"grid={self.grid}: expected at least 2, as one cell shows all of the image or nothing")
        require(0 < self.probability <= 1, f"probability={self.probability}: expected more than 0 and at most 1")
        check_tolerance(self.tolerance)

    def explain(self, query: Query) -> Attribution:
        """Explain a query with one forward pass per mask, and one for the images."""
        query, score = query.resolve_targets()
        images, way = query.images, query.images - query.baseline
        draw = jax.vmap(lambda key: sample_mask(key, get_spatial_shape(images), self.grid, self.probability))

        def sample(j):
            masks = draw(fold_sample_keys(query.keys, j))
            scores = query.compute_scores(query.baseline + broadcast_to_channels(masks, images) * way)
            return jnp.einsum("bk,b...->bk...", scores, masks) / self.probability

        moments = compute_moments(sample, self.samples, query.points_per_call, self.tolerance)
        return make_attribution(
            query,
            broadcast_to_channels(moments.mean, images),
            score,
            moments.evaluations + 1,
            broadcast_to_channels(moments.stderr, images),
        )


def sample_mask(key: Key[Array, ""], sizes: tuple[int, ...], grid: int, probability: float) -> Float[Array, ...]:
    """Draw a mask in [0, 1] of shape `sizes`, whose expectation is `probability` at every pixel."""
    cells_key, shift_key = jax.random.split(key)
    cells = [ceil(size / grid) for size in sizes]
    shifts = jax.random.randint(shift_key, (len(sizes),), 0, jnp.asarray(cells))
    mask = jax.random.bernoulli(cells_key, probability, (grid,) * len(sizes)).astype(jnp.float32)
    for size, cell, shift in zip(sizes, cells, shifts, strict=True):
        # Each product moves an axis to the end, so after the last one the axes are in order again.
        mask = jnp.tensordot(mask, _enlarge(size, grid, cell, shift), axes=(0, 1), precision=jax.lax.Precision.HIGHEST)
    return mask


def _enlarge(size: int, grid: int, cell: int, shift: Int[Array, ""]) -> Float[Array, "size grid"]:
    """Return the bilinear weight of each cell for each pixel of a line, of cells that are shifted by some pixels."""
    # The grid spans one cell more than the image, so that it covers the image after any shift.
    scale = grid / ((grid + 1) * cell)
    centers = jnp.clip((shift + jnp.arange(size) + 0.5) * scale - 0.5, 0, grid - 1)
    return jnp.maximum(0, 1 - jnp.abs(centers[:, None] - jnp.arange(grid)[None]))
