"""Gradients integrated along the images from a blurred one to the sharp one."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log

import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxclf.errors import require
from jaxclf.saliency.attribution import Attribution
from jaxclf.saliency.base import BaseMethod
from jaxclf.saliency.batching import sum_over
from jaxclf.saliency.methods.integrated_gradients import nodes_and_weights
from jaxclf.saliency.query import Query, complete
from jaxclf.saliency.space import space
from jaxclf.types import Array

SHARP = 0.15  # pixels; a Gaussian so narrow gives a neighbour 2e-10 of the weight, less than float32 can tell from none


@dataclass(frozen=True)
class BlurIntegratedGradients(BaseMethod):
    """The gradients along the way from a blurred image to the sharp one, times the change of each pixel on that way.

    The way is the exact derivative of the blur by its width. It needs no baseline: what it begins with is the image
    blurred by `max_sigma`, with zeros around it; the values sum to the change of the score from there. Channels are not
    mixed. Flat images have one axis.

    S. Xu, S. Venugopalan, M. Sundararajan, "Attribution in scale and space" (2020), arXiv:2004.03383.
    """

    steps: int = 100
    """Gradients an example."""
    max_sigma: float = 50.0
    """Standard deviation, in pixels, of the widest blur."""

    def __post_init__(self):
        nodes_and_weights("gauss_legendre", self.steps)
        require(self.max_sigma > SHARP, f"max_sigma={self.max_sigma}: expected more than {SHARP}, which blurs nothing")

    def explain(self, query: Query) -> Attribution:
        """As many gradients as steps, and the scores at both ends."""
        query, score = query.settled()

        def image(sharpness):
            # Equal steps change the width by equal factors: a picture has detail of all sizes.
            return blurred(query.images, SHARP * jnp.exp((1 - sharpness) * log(self.max_sigma / SHARP)), self.max_sigma)

        def weighted(node, weight):
            images, way = jax.jvp(image, (node,), (jnp.ones_like(node),))
            return weight * way[:, None] * query.gradients(images)

        points = jnp.asarray(nodes_and_weights("gauss_legendre", self.steps), query.images.dtype).T
        values = sum_over(lambda point: weighted(*point), points, query.points_at_once)
        return complete(query, values, score, query.scores(image(jnp.zeros_like(points[0, 0]))), self.steps + 2)


def blurred(images: Float[Array, "b ..."], sigma: Float[Array, ""], max_sigma: float) -> Float[Array, "b ..."]:
    """Images blurred by a Gaussian of `sigma` pixels, at most `max_sigma`, with zeros around them."""
    # All of the Gaussian, also what falls outside: to eight deviations, one beyond the last digit of float32.
    reach = ceil(8 * max_sigma)
    total = _gaussian(jnp.arange(-reach, reach + 1), sigma).sum()
    for axis, size in enumerate(space(images), start=1):
        pixels = jnp.arange(size)
        weights = (_gaussian(pixels[:, None] - pixels[None], sigma) / total).astype(images.dtype)
        done = jnp.tensordot(images, weights, axes=(axis, 0), precision=jax.lax.Precision.HIGHEST)
        images = jnp.moveaxis(done, -1, axis)
    return images


def _gaussian(distances: Array, sigma: Float[Array, ""]) -> Float[Array, ...]:
    return jnp.exp(-0.5 * (distances / sigma) ** 2)
