"""Generic attention explainability: attention weights times their gradients, through all layers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxclf.saliency.base import BaseMethod
from jaxclf.saliency.methods.attention import Pool, Weights, make_token_map, make_zeros, tap_attention
from jaxclf.saliency.query import Attribution, Query, make_attribution
from jaxclf.types import Array, promote_float


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
        zeros, images = make_zeros(query.compute_logits, query.images), query.images

        def make_map(gradients: list[Weights], weights: list[Weights]) -> Float[Array, "b h w 1"]:
            layers = []
            for attention, gradient in zip(weights, gradients, strict=True):
                matrix = jax.nn.relu(promote_float(attention) * promote_float(gradient)).mean(axis=1)
                layers.append(matrix + jnp.eye(matrix.shape[-1])[None])
            return make_token_map(layers, images, self.pool)

        query, score, maps, _ = query.differentiate(run, zeros, make_map)
        return make_attribution(query, maps, score, evaluations=1)
