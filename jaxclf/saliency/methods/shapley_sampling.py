"""Shapley values of regions of the image, by sampling permutations."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, Key

from jaxclf.errors import require
from jaxclf.saliency.base import BaseMethod
from jaxclf.saliency.batching import map_over
from jaxclf.saliency.features import Features, divide_into_cells
from jaxclf.saliency.query import Attribution, Query, Scores, make_complete_attribution
from jaxclf.saliency.sampling import check_tolerance, compute_moments, fold_sample_keys
from jaxclf.types import Array


@dataclass(frozen=True)
class ShapleySampling(BaseMethod):
    """Shapley values of features: the change of the score by a feature, averaged over all orders of showing them.

    In each sample the features appear in a random order, where the baseline was before, and each one gets the change
    that it makes. Features are the regions that the argument `features` gives, such as superpixels, or the cells of a
    grid. A feature's value is shared equally by its pixels and channels, so the values sum to the change of the score
    from the baseline, up to rounding, with any number of samples.

    It needs no gradients, and accounts for features that act together, which Occlusion does not.

    E. Strumbelj, I. Kononenko, "An efficient explanation of individual classifications using game theory" (2010), JMLR
    11; J. Castro, D. Gómez, J. Tejada, "Polynomial calculation of the Shapley value based on sampling" (2009),
    Computers & Operations Research 36.
    """

    samples: int = 25
    """Number of permutations per example."""
    grid: int = 7
    """Without given features: largest number of cells along each spatial axis; flat images have one axis."""

    tolerance: float | None = None
    """Stop as soon as no feature's standard error is more than this times the largest absolute value of a feature,
    checked after every 16 permutations. Has no reverse-mode derivative. None: take all samples."""

    sampled = True
    removes_features = True
    gradient_based = False

    def __post_init__(self):
        require(self.samples >= 2, f"samples={self.samples}: expected at least 2")
        require(self.grid >= 1, f"grid={self.grid}: expected at least 1")
        check_tolerance(self.tolerance)

    def explain(self, query: Query) -> Attribution:
        """Explain a query with one forward pass per sample and feature but the last, and one at each end."""
        query, score = query.resolve_targets()
        start = query.compute_scores(query.baseline)
        features = query.features or divide_into_cells(query.images, self.grid)
        orders = features.count - 1

        def sample(j: Int[Array, ""]) -> Float[Array, "b targets count"]:
            keys = fold_sample_keys(query.keys, j)
            ranks = jax.vmap(partial(_sample_ranks, features.count))(keys)
            gains = _compute_gains(query, features, ranks, start, score)
            return jnp.take_along_axis(gains, ranks[:, None], axis=2)

        samples_per_call = max(1, query.points_per_call // max(1, orders))
        moments = compute_moments(sample, self.samples, samples_per_call, self.tolerance)
        values, stderr = (features.share(x, query.images) for x in (moments.mean, moments.stderr))
        return make_complete_attribution(query, values, score, start, moments.evaluations * orders + 2, stderr)


def _sample_ranks(count: int, key: Key[Array, ""]) -> Int[Array, " count"]:
    """Return the places of features in a random order, in which features do not depend on how many follow them."""
    draws = jax.vmap(lambda number: jax.random.uniform(jax.random.fold_in(key, number)))(jnp.arange(count))
    return jnp.argsort(jnp.argsort(draws))


def _compute_gains(
    query: Query, features: Features, ranks: Int[Array, "b count"], start: Scores, end: Scores
) -> Float[Array, "b targets count"]:
    """Return the change of the scores with each feature that appears, in the order of the ranks."""

    def compute_scores(shown: Int[Array, ""]) -> Scores:
        visible = features.select(ranks < shown, query.images)
        return query.compute_scores(jnp.where(visible, query.images, query.baseline))

    path = [start[None], end[None]]
    if features.count > 1:
        path.insert(1, map_over(compute_scores, jnp.arange(1, features.count), query.points_per_call))
    return jnp.moveaxis(jnp.diff(jnp.concatenate(path), axis=0), 0, -1)
