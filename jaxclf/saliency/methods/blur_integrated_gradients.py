"""Integrated gradients along a path of images from a blurred one to the original."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log

import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxclf.errors import require
from jaxclf.saliency.base import BaseMethod
from jaxclf.saliency.batching import sum_over
from jaxclf.saliency.methods.integrated_gradients import compute_quadrature
from jaxclf.saliency.pixels import get_spatial_shape
from jaxclf.saliency.query import Attribution, Query, make_complete_attribution
from jaxclf.types import Array

SHARP = 0.15  # pixels; a Gaussian this narrow gives a neighbor 2e-10 of the weight, which float32 does not resolve


@dataclass(frozen=True)
class BlurIntegratedGradients(BaseMethod):
    """Integrated gradients along a path of less and less blurred images.

    The path starts at the image blurred by `max_sigma`, with zeros around it, so no baseline is needed, and dark pixels
    can have values too. The change of a pixel along the path is the exact derivative of the blur with respect to its
    width. Values sum to the change of the score from the blurred image. Channels are blurred separately; flat images
    have one axis.

    S. Xu, S. Venugopalan, M. Sundararajan, "Attribution in scale and space" (2020), arXiv:2004.03383.
    """

    steps: int = 100
    """Number of gradients per example."""
    max_sigma: float = 50.0
    """Standard deviation of the widest blur in pixels."""

    def __post_init__(self):
        compute_quadrature("gauss_legendre", self.steps)
        require(self.max_sigma > SHARP, f"max_sigma={self.max_sigma}: expected more than {SHARP}, which does not blur")

    def explain(self, query: Query) -> Attribution:
        """Explain a query with one gradient per step, and the scores at both ends of the path."""
        query, score = query.resolve_targets()

        def image(sharpness):
            # Equal steps change the width by equal factors, because images have detail at all scales.
            return blur(query.images, SHARP * jnp.exp((1 - sharpness) * log(self.max_sigma / SHARP)), self.max_sigma)

        def weighted(node, weight):
            images, way = jax.jvp(image, (node,), (jnp.ones_like(node),))
            return weight * way[:, None] * query.compute_gradients(images)

        points = jnp.asarray(compute_quadrature("gauss_legendre", self.steps), query.images.dtype).T
        values = sum_over(lambda point: weighted(*point), points, query.points_per_call)
        return make_complete_attribution(
            query, values, score, query.compute_scores(image(jnp.zeros_like(points[0, 0]))), self.steps + 2
        )


def blur(images: Float[Array, "b ..."], sigma: Float[Array, ""], max_sigma: float) -> Float[Array, "b ..."]:
    """Blur images with a Gaussian of `sigma` pixels, at most `max_sigma`, with zeros around them."""
    # The sum of the whole Gaussian, also outside the image: to eight standard deviations, beyond float32's precision.
    reach = ceil(8 * max_sigma)
    total = _compute_gaussian(jnp.arange(-reach, reach + 1), sigma).sum()
    for axis, size in enumerate(get_spatial_shape(images), start=1):
        pixels = jnp.arange(size)
        weights = (_compute_gaussian(pixels[:, None] - pixels[None], sigma) / total).astype(images.dtype)
        blurred = jnp.tensordot(images, weights, axes=(axis, 0), precision=jax.lax.Precision.HIGHEST)
        images = jnp.moveaxis(blurred, -1, axis)
    return images


def _compute_gaussian(distances: Array, sigma: Float[Array, ""]) -> Float[Array, ...]:
    return jnp.exp(-0.5 * (distances / sigma) ** 2)
