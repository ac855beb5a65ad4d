"""Expected gradients: integrated gradients averaged over a distribution of baselines."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from jaxclf.errors import require
from jaxclf.saliency.base import BaseMethod
from jaxclf.saliency.batching import map_over
from jaxclf.saliency.query import Attribution, Query, Scores, make_complete_attribution, select_scores
from jaxclf.saliency.sampling import check_tolerance, compute_moments, fold_sample_keys
from jaxclf.types import Array


@dataclass(frozen=True)
class ExpectedGradients(BaseMethod):
    """Integrated gradients averaged over a baseline distribution, by sampling baselines and places on the paths.

    The distribution is `baseline` [k, ...], such as training images; the values sum to the score minus its mean over
    them. Use it if no single input is free of information. Places and baselines are stratified, so `stderr`, which is
    that of independent samples, is larger than the error.
    G. Erion et al., "Improving performance of deep learning models with axiomatic attribution priors" (2019),
    arXiv:1906.10670; also known as GradientSHAP.
    """

    samples: int = 50
    """Number of gradients per example; with a tolerance, the largest number."""
    tolerance: float | None = None
    """Stop as soon as no pixel's standard error is more than this times the largest absolute value of the map, checked
    after every 16 samples. Places on the paths are then taken in a random order. Has no reverse-mode derivative.
    None: take all samples."""

    sampled = True
    references = True

    def __post_init__(self):
        require(self.samples >= 1, f"samples={self.samples}: expected at least 1")
        check_tolerance(self.tolerance)

    def explain(self, query: Query) -> Attribution:
        """Explain a query with one gradient per sample, and the scores at the images and at all baselines."""
        query, score = query.resolve_targets()
        drawn, strata = self._draw_references(query), self._order_strata(query)

        def sample(j):
            references = query.baseline[drawn[:, j]]
            offset = jax.vmap(jax.random.uniform)(fold_sample_keys(query.keys, j))
            place = ((strata[:, j] + offset) / self.samples).reshape(-1, *[1] * (references.ndim - 1))
            way = query.images - references
            return way[:, None] * query.compute_gradients(references + place.astype(way.dtype) * way)

        moments = compute_moments(sample, self.samples, query.points_per_call, self.tolerance)
        evaluations = moments.evaluations + 1 + query.baseline.shape[0]
        return make_complete_attribution(
            query, moments.mean, score, _compute_mean_score(query), evaluations, moments.stderr
        )

    def _draw_references(self, query: Query) -> Int[Array, "b samples"]:
        """Draw the baseline of each sample: all of them equally often, up to one, in a random order per example."""
        k = query.baseline.shape[0]
        rounds = jnp.arange(-(-self.samples // k) * k) % k
        # Not the key of the example: the shuffle splits its key, which is folding in 0, 1, ... as samples do.
        keys = fold_sample_keys(query.keys, jnp.int32(self.samples))
        return jax.vmap(lambda key: jax.random.permutation(key, rounds))(keys)[:, : self.samples]

    def _order_strata(self, query: Query) -> Int[Array, "b samples"]:
        """Return the part of the path that each sample is drawn from: in order, or in a random order per example."""
        strata = jnp.arange(self.samples)
        if self.tolerance is None:
            return jnp.broadcast_to(strata, (query.images.shape[0], self.samples))
        # The first samples alone would be those near the baseline.
        keys = fold_sample_keys(query.keys, jnp.int32(self.samples + 1))
        return jax.vmap(lambda key: jax.random.permutation(key, strata))(keys)


def _compute_mean_score(query: Query) -> Scores:
    """Return the mean of each example's score over the baseline distribution [k, ...]."""

    def score_reference(reference: Float[Array, ...]) -> Scores:
        logits = query.compute_logits(reference[None])
        rows = (query.images.shape[0], logits.shape[1])
        return select_scores(query.score, jnp.broadcast_to(logits, rows), query.targets)

    return map_over(score_reference, query.baseline, query.max_rows).mean(axis=0)
