"""Conductance: what flows through each unit of a layer along the path of integrated gradients."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxclf.saliency.base import BaseMethod
from jaxclf.saliency.batching import sum_over
from jaxclf.saliency.methods.integrated_gradients import FixedRule, compute_quadrature
from jaxclf.saliency.query import Attribution, Query, make_complete_attribution
from jaxclf.saliency.taps import find_layer, tap_layers
from jaxclf.types import Array, promote_float


@dataclass(frozen=True)
class Conductance(BaseMethod):
    """The part of the integrated gradients that flows through each unit of a layer. Values are shaped like its output.

    On the straight line from the baseline to the image, the gradient of the score with respect to a unit is multiplied
    by the derivative of the unit along the line, and integrated. If all of the image passes through the layer, the
    values sum to the change of the score from the baseline, up to `delta`; otherwise the rest flows beside the layer.

    K. Dhamdhere, M. Sundararajan, Q. Yan, "How important is a neuron?" (2018), arXiv:1805.12233, equation 3 summed over
    the pixels.
    """

    layer: str | None = None
    """Path of the module whose output is explained, such as "block/conv2"; None: the layer of class activation maps."""
    steps: int = 50
    """Number of gradients per example."""
    rule: FixedRule = "gauss_legendre"
    """Quadrature rule."""

    def __post_init__(self):
        compute_quadrature(self.rule, self.steps)

    def explain(self, query: Query) -> Attribution:
        """Explain a query with one gradient and one derivative along the line per step, and the scores at both ends."""
        layer, run = find_layer(query, self.layer), tap_layers(query)
        query, score = query.resolve_targets()
        way = query.images - query.baseline

        def compute_output(images: Float[Array, "b ..."]) -> Float[Array, "b ..."]:
            return run(images, layer.make_zeros())[1][layer.path]

        def compute_flow(point: Float[Array, " 2"]) -> Float[Array, "b targets ..."]:
            node, weight = point
            place = query.baseline + node.astype(way.dtype) * way
            speed = promote_float(jax.jvp(compute_output, (place,), (way,))[1])
            gradients = query.differentiate(lambda taps: run(place, taps), layer.make_zeros())[2]
            return weight * speed[:, None] * promote_float(gradients[layer.path])

        points = jnp.asarray(compute_quadrature(self.rule, self.steps), promote_float(way).dtype).T
        values = sum_over(compute_flow, points, query.points_per_call)
        start = query.compute_scores(query.baseline)
        return make_complete_attribution(query, values, score, start, 2 * self.steps + 2)
