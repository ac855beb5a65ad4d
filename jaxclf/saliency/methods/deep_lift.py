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
from jaxclf.types import Array, Logits
from jaxclf.xla.convolutions import rewrite_convolutions


@dataclass(frozen=True)
class DeepLift(BaseMethod):
    """DeepLIFT: the difference of each pixel from the baseline times its multiplier.

    Multipliers are ratios of differences instead of derivatives, so they do not vanish where the model saturates. They
    are propagated by the rescale rule through elementwise functions, by the derivative at the midpoint through
    products, and through maxima to the operand that is larger at the image if the maximum rises, at the baseline if it
    falls. The values sum to the change of the score from the baseline up to rounding, also through softmax and max
    pooling.

    Similar to IntegratedGradients at the cost of two passes. Raises UserError that names the operation if the model has
    one without a rule, such as sorting.
    A. Shrikumar, P. Greenside, A. Kundaje, "Learning important features through propagating activation differences"
    (2017), arXiv:1704.02685: the rescale rule.
    """

    gradient_based = False

    def explain(self, query: Query) -> Attribution:
        """Explain a query with one forward pass at the images, one at the baseline, and one backward pass."""

        def propagate(way):
            score, pull, (at_image, at_baseline) = jax.vjp(partial(_compute_change, query), way, has_aux=True)
            multipliers = pull_per_target(lambda cotangents: pull(cotangents)[0], score, query.points_per_call)
            return at_image, at_baseline, multipliers

        way = query.images - query.baseline
        score, baseline_score, multipliers = rewrite_convolutions(propagate)(way)
        return make_complete_attribution(query, way[:, None] * multipliers, score, baseline_score, evaluations=2)


def _compute_change(query: Query, way: Float[Array, "b ..."]) -> tuple[Scores, tuple[Scores, Scores]]:
    """Return the change of the scores, linear in the change of the images, and the scores at images and baseline."""
    differences = Differences()
    logits = differences.convert(differences.run(query.compute_logits, Pair(query.images, query.baseline, way)))
    targets = query.resolve_targets(logits.value)[0].targets
    scores = differences.run(partial(_compute_scores, query.score, targets=targets), logits)
    return scores.change, (scores.value, scores.baseline)


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
