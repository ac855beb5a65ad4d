"""DeepLIFT: differences from a baseline, propagated through every operation of a model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from jaxclf.saliency.base import BaseMethod
from jaxclf.saliency.methods.deep_lift_rules import Differences, Pair
from jaxclf.saliency.query import (
    Attribution,
    Query,
    Score,
    Scores,
    make_complete_attribution,
    pull_per_target,
    select_scores,
)
from jaxclf.saliency.taps import Layer, find_layer, tap_layers
from jaxclf.types import Array, Logits, promote_float
from jaxclf.xla.convolutions import rewrite_convolutions


@dataclass(frozen=True)
class DeepLift(BaseMethod):
    """DeepLIFT: the difference of each pixel from the baseline times its multiplier.

    Multipliers are ratios of differences instead of derivatives, so they do not vanish where the model saturates. They
    are propagated by the rescale rule through elementwise functions, by the derivative at the midpoint through
    products, and through maxima to the operand that is larger at the image if the maximum rises, at the baseline if it
    falls. The values sum to the change of the score from the baseline up to rounding, also through softmax and max
    pooling.

    With a layer, the differences of its output are propagated, and the values sum to the change of the score if all of
    the image passes through it.

    A normalization without biases before it has no variance at a black baseline: its multipliers are as large as one
    over its epsilon, and rounding shows in `delta`. Where only the result is bounded, as in Keras's UnitNormalization,
    values are NaN. Use a baseline that is not constant, such as a blurred image.

    Similar to IntegratedGradients at the cost of two passes. Raises UserError that names the operation if the model has
    one without a rule, such as sorting.
    A. Shrikumar, P. Greenside, A. Kundaje, "Learning important features through propagating activation differences"
    (2017), arXiv:1704.02685: the rescale rule.
    """

    layer: str | None = None
    """Path of the module whose output is explained, such as "block/conv2", with values shaped like it; None: pixels."""

    gradient_based = False

    def explain(self, query: Query) -> Attribution:
        """Explain a query with one forward pass at the images, one at the baseline, and one backward pass."""
        layer = None if self.layer is None else find_layer(query, self.layer)

        def propagate(change):
            score, pull, auxiliary = jax.vjp(partial(_compute_change, query, layer), change, has_aux=True)
            multipliers = pull_per_target(lambda cotangents: pull(cotangents)[0], score, query.points_per_call)
            return *auxiliary, multipliers

        # The change of the score is linear in that of the layer, so any will do to find the multipliers.
        change = query.images - query.baseline if layer is None else layer.make_zeros()[layer.path]
        score, baseline_score, way, multipliers = rewrite_convolutions(propagate)(change)
        values = promote_float(way)[:, None] * promote_float(multipliers)
        return make_complete_attribution(query, values, score, baseline_score, evaluations=2)


def _compute_change(
    query: Query, layer: Layer | None, change: Float[Array, "b ..."]
) -> tuple[Scores, tuple[Scores, Scores, Float[Array, "b ..."]]]:
    """Return the change of the scores, linear in the change of the pixels or of the output of a layer.

    With it are returned the scores at images and baseline, and the difference of the pixels or of the layer.
    """
    differences = Differences()
    if layer is None:
        way = query.images - query.baseline
        logits = differences.run(query.compute_logits, Pair(query.images, query.baseline, change))
    else:
        # The layer's input has no change, only values at image and baseline.
        images, zeros = Pair(query.images, query.baseline, jnp.zeros_like(query.images)), jnp.zeros_like(change)
        taps = {layer.path: Pair(zeros, zeros, change)}
        logits, outputs = differences.run(tap_layers(query), images, taps)
        output = differences.convert(outputs[layer.path])
        way = output.value - output.baseline
    logits = differences.convert(logits)
    targets = query.resolve_targets(logits.value)[0].targets
    scores = differences.run(partial(_compute_scores, query.score, targets=targets), logits)
    return scores.change, (scores.value, scores.baseline, way)


def _compute_scores(kind: Score, logits: Logits, targets: Int[Array, " b"] | None) -> Scores:
    if kind != "margin":
        return select_scores(kind, logits, targets)
    # The other logit as a maximum, which has a rule: `select_scores` gathers at an index that depends on the image.
    others = jnp.where(_mask_own_class(logits.shape[1], targets), -jnp.inf, logits[:, None])
    return select_scores("logit", logits, targets) - others.max(axis=2)


def _mask_own_class(classes: int, targets: Int[Array, " b"] | None) -> Bool[Array, "#b targets classes"]:
    every = jnp.arange(classes)
    own = every[None] if targets is None else targets[:, None]
    return own[:, :, None] == every[None, None]
