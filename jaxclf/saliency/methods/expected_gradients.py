"""Integrated gradients on average over many baselines."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from jaxclf.errors import require
from jaxclf.saliency.attribution import Attribution
from jaxclf.saliency.base import BaseMethod
from jaxclf.saliency.batching import map_over
from jaxclf.saliency.query import Query, Scores, complete, scores_of
from jaxclf.saliency.sampling import moments_over, sample_keys
from jaxclf.types import Array


@dataclass(frozen=True)
class ExpectedGradients(BaseMethod):
    """The mean of (x - x0) times the gradient between x0 and x, over references x0 and places on the way, both drawn.

    The values sum to the score minus its mean over the references, the `baseline` [k, ...]. Places and references are
    spread evenly, so `stderr`, that of independent draws, is more than the error.
    G. Erion et al., "Improving performance of deep learning models with axiomatic attribution priors" (2019),
    arXiv:1906.10670; also known as GradientSHAP.
    """

    samples: int = 50
    """Gradients an example."""

    sampled = True
    references = True

    def __post_init__(self):
        require(self.samples >= 1, f"samples={self.samples}: expected at least 1")

    def explain(self, query: Query) -> Attribution:
        """As many gradients as samples, the score, and the scores at all references."""
        query, score = query.settled()
        drawn = self._draw_references(query)

        def sample(j):
            references = query.baseline[drawn[:, j]]
            spread = jax.vmap(jax.random.uniform)(sample_keys(query.keys, j))
            place = ((j + spread) / self.samples).reshape(-1, *[1] * (references.ndim - 1))
            way = query.images - references
            return way[:, None] * query.gradients(references + place.astype(way.dtype) * way)

        moments = moments_over(sample, self.samples, query.points_at_once)
        evaluations = self.samples + 1 + query.baseline.shape[0]
        return complete(query, moments.mean, score, _mean_score(query), evaluations, moments.stderr)

    def _draw_references(self, query: Query) -> Int[Array, "b samples"]:
        """Every reference as often as any other, give or take one, in an order of each example's own."""
        k = query.baseline.shape[0]
        rounds = jnp.arange(-(-self.samples // k) * k) % k
        # A key of its own, behind those of the samples: the shuffle splits it, and splitting is folding in 0, 1, ...
        keys = sample_keys(query.keys, jnp.int32(self.samples))
        return jax.vmap(lambda key: jax.random.permutation(key, rounds))(keys)[:, : self.samples]


def _mean_score(query: Query) -> Scores:
    """The mean over references [k, ...] of each example's scores there."""

    def of_reference(reference: Float[Array, ...]) -> Scores:
        logits = query.logits(reference[None])
        rows = (query.images.shape[0], logits.shape[1])
        return scores_of(query.score, jnp.broadcast_to(logits, rows), query.targets)

    return map_over(of_reference, query.baseline, query.max_rows).mean(axis=0)
