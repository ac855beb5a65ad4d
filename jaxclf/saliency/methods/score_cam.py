"""Class-activation maps without gradients: the model sees the image through each channel of a layer."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxclf.saliency.attribution import Attribution
from jaxclf.saliency.batching import map_over
from jaxclf.saliency.methods.grad_cam import ActivationMap, upsampled
from jaxclf.saliency.query import Query, attribution
from jaxclf.saliency.taps import spatial_layer, with_layer
from jaxclf.types import Array


@dataclass(frozen=True)
class ScoreCam(ActivationMap):
    """Each channel is weighted by the score of the image seen through it, a softmax over channels.

    A channel, upsampled to the image and brought to [0, 1], is a mask: where it is 0 the image is the baseline. A
    channel that is the same everywhere shows the baseline alone. Images are [b, h, w, c], or there is a UserError.
    H. Wang et al., "Score-CAM" (2020), arXiv:1910.01279.
    """

    def explain(self, query: Query) -> Attribution:
        """One pass forward an image, and one a channel.

        The paper's score at the baseline, which it takes off all of them, would not change the softmax.
        """
        layer = spatial_layer(query, self.layer)
        logits, activation = with_layer(query, layer)(query.images, layer.unchanged())
        activation = activation.astype(jnp.float32)
        query, score = query.settled_by(logits)

        def seen_through(channel):
            mask = unit_masks(channel, query.images)
            return query.scores(query.baseline + mask * (query.images - query.baseline))

        scores = map_over(seen_through, jnp.moveaxis(activation, -1, 0), query.points_at_once)
        weights = jnp.moveaxis(jax.nn.softmax(scores, axis=0), 0, -1)[:, :, None, None]
        channels = activation.shape[-1]
        return attribution(query, self.added_up(query, weights, activation[:, None]), score, evaluations=channels + 1)


def unit_masks(channel: Float[Array, "b h w"], images: Float[Array, "b ..."]) -> Float[Array, "b h2 w2 1"]:
    """A channel as masks [b, h, w, 1] of the images: from 0 where it is least to 1 where it is largest."""
    masks = upsampled(channel[:, None, :, :, None], images, "bilinear")[:, 0]
    low, high = masks.min(axis=(1, 2), keepdims=True), masks.max(axis=(1, 2), keepdims=True)
    # Less than this is what upsampling a constant leaves of rounding.
    varies = high - low > 1e-6 * jnp.maximum(abs(low), abs(high))
    return jnp.where(varies, (masks - low) / jnp.where(varies, high - low, 1), 0)
