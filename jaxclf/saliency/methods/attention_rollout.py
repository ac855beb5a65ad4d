"""Attention rollout: the attention weights of all layers multiplied."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp

from jaxclf.saliency.base import BaseMethod
from jaxclf.saliency.methods.attention import Pool, Weights, make_token_map, tap_attention
from jaxclf.saliency.query import Attribution, Query, make_attribution
from jaxclf.types import Array, promote_float


@dataclass(frozen=True)
class AttentionRollout(BaseMethod):
    """Attention rollout: how much the pooled tokens of a transformer take from each patch, through all layers.

    The matrix of a layer is the mean of its attention weights over heads plus the identity, for the skip connection,
    with rows that sum to 1; the matrices of all layers are multiplied. Values are [b, h, w, 1], of the size of the grid
    of patches, and not negative; with the share of a class token, which has no place, they sum to 1. They do not depend
    on the class. Use it to see where the network looks, not why it decides.

    Attention is found in the program of a model, whatever wrote it. Raises UserError if there is none, if it is not
    between all tokens in every layer, and if the tokens are no grid over images [b, h, w, c].
    S. Abnar, W. Zuidema, "Quantifying attention flow in transformers" (2020), arXiv:2005.00928, equation 1.
    """

    pool: Pool | None = None
    """What the logits are computed from, "class_token" (the first token) or the "mean" of all tokens; None: the first
    token if there are tokens besides those of patches, otherwise the mean."""

    gradient_based = False

    def explain(self, query: Query) -> Attribution:
        """Explain a query with one forward pass."""
        logits, weights = tap_attention(query.compute_logits)(query.images, ())
        query, score = query.resolve_targets(logits)
        maps = make_token_map([_add_skip(x) for x in weights], query.images, self.pool)
        values = jnp.broadcast_to(maps[:, None], (*score.shape, *maps.shape[1:]))
        return make_attribution(query, values, score, evaluations=1)


def _add_skip(weights: Weights) -> Array:
    """Return the matrix of a layer [b, n, n]: mean over heads, plus the identity, rows that sum to 1."""
    mean = promote_float(weights).mean(axis=1)
    matrix = mean + jnp.eye(mean.shape[-1])[None]
    return matrix / matrix.sum(axis=-1, keepdims=True)
