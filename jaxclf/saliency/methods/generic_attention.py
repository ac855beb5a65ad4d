"""Generic attention explainability: attention weights times their gradients, through all layers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from jaxclf.saliency.base import BaseMethod
from jaxclf.saliency.methods.attention import Pool, make_token_map, make_zeros, multiply_relevance, tap_attention
from jaxclf.saliency.query import Attribution, Query, make_attribution
from jaxclf.types import promote_float


@dataclass(frozen=True)
class GenericAttention(BaseMethod):
    """Generic attention explainability: like AttentionRollout, with attention that raises the score of the class.

    The relevance R of the tokens of the first layer for those of later ones starts as the identity, and a layer with
    attention weights A adds E((A * dA)+) R to it, with the gradients dA of the score, positive parts, and the mean E
    over heads. Values are [b, h, w, 1], of the size of the grid of patches, and not negative.

    Attention is found in the program of a model, whatever wrote it. Raises UserError like AttentionRollout.
    H. Chefer, S. Gur, L. Wolf, "Generic attention-model explainability for interpreting bi-modal and encoder-decoder
    transformers" (2021), arXiv:2103.15679, equations 5 and 6, for self-attention.
    """

    pool: Pool | None = None
    """What the logits are computed from, "class_token" (the first token) or the "mean" of all tokens; None: the first
    token if there are tokens besides those of patches, otherwise the mean."""

    gradient_based = False  # those of attention weights, which balanced gradients take for constants

    def explain(self, query: Query) -> Attribution:
        """Explain a query with one forward and one backward pass."""
        run = partial(tap_attention(query.compute_logits), query.images)
        zeros = make_zeros(query.compute_logits, query.images)
        query, score, gradients, weights = query.differentiate(run, zeros)

        layers = []
        for attention, gradient in zip(weights, gradients, strict=True):
            product = promote_float(attention)[:, None] * promote_float(gradient)
            matrix = jax.nn.relu(product).mean(axis=2)
            layers.append(matrix + jnp.eye(matrix.shape[-1])[None, None])
        maps = make_token_map(multiply_relevance(layers), query.images, self.pool)
        return make_attribution(query, maps, score, evaluations=1)
