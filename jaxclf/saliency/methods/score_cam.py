"""Score-CAM: class activation maps without gradients, weighted by the scores of masked images."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxclf.saliency.batching import map_over
from jaxclf.saliency.methods.grad_cam import ActivationMap, upsample_maps
from jaxclf.saliency.query import Attribution, Query, make_attribution
from jaxclf.saliency.taps import find_spatial_layer, tap_layers
from jaxclf.types import Array


@dataclass(frozen=True)
class ScoreCam(ActivationMap):
    """Score-CAM: each channel is weighted by the softmax, over channels, of the score of the image masked by it.

    A mask is a channel that is upsampled to the image and scaled to [0, 1]; where it is 0 the baseline is shown. A
    constant channel shows only the baseline. Use it where gradients are noisy or not available. Raises UserError for
    images that are not [b, h, w, c].
    H. Wang et al., "Score-CAM" (2020), arXiv:1910.01279.
    """

    gradient_based = False

    def explain(self, query: Query) -> Attribution:
        """Explain a query with one forward pass per channel, and one for the images."""
        layer = find_spatial_layer(query, self.layer)
        logits, outputs = tap_layers(query)(query.images, layer.make_zeros())
        activation = layer.to_map(outputs[layer.path].astype(jnp.float32))
        query, score = query.resolve_targets(logits)

        def compute_masked_score(channel):
            mask = _normalize_mask(channel, query.images)
            return query.compute_scores(query.baseline + mask * (query.images - query.baseline))

        scores = map_over(compute_masked_score, jnp.moveaxis(activation, -1, 0), query.points_per_call)
        # The paper subtracts the score at the baseline from all of them, which would not change the softmax.
        weights = jnp.moveaxis(jax.nn.softmax(scores, axis=0), 0, -1)[:, :, None, None]
        channels = activation.shape[-1]
        return make_attribution(
            query, self.combine_channels(query, weights, activation[:, None]), score, evaluations=channels + 1
        )


def _normalize_mask(channel: Float[Array, "b h w"], images: Float[Array, "b ..."]) -> Float[Array, "b h2 w2 1"]:
    """Upsample a channel to the images and scale it from its minimum and maximum to [0, 1]."""
    masks = upsample_maps(channel[:, None, :, :, None], images, "bilinear")[:, 0]
    low, high = masks.min(axis=(1, 2), keepdims=True), masks.max(axis=(1, 2), keepdims=True)
    # Upsampling a constant leaves differences of this size by rounding, which must not be scaled up to a mask.
    varies = high - low > 1e-6 * jnp.maximum(abs(low), abs(high))
    return jnp.where(varies, (masks - low) / jnp.where(varies, high - low, 1), 0)
