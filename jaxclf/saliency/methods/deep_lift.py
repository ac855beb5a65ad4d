"""DeepLIFT, by programs that carry differences between an image and a baseline."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from jaxclf.saliency.attribution import Attribution
from jaxclf.saliency.base import BaseMethod
from jaxclf.saliency.methods.deep_lift_rules import Differences, Pair
from jaxclf.saliency.query import Query, Score, Scores, complete, pull_heads, scores_of
from jaxclf.types import Array, Logits
from jaxclf.xla.convolutions import fast_convolutions


@dataclass(frozen=True)
class DeepLift(BaseMethod):
    """The difference of each pixel from the baseline, times what the score's difference owes to it.

    A function of one number owes its difference to that number (the rescale rule); a product, to each factor with the
    others at their mean; a maximum, to the larger at the image where it rose, to the larger at the baseline where it
    fell. So the values sum to the change of the score, through softmax and pooling too.
    Raises UserError that names the operation where a model does what there is no rule for, such as sorting.
    A. Shrikumar, P. Greenside, A. Kundaje, "Learning important features through propagating activation differences"
    (2017), arXiv:1704.02685: the rescale rule.
    """

    def explain(self, query: Query) -> Attribution:
        """One pass forward at the images, one at the baseline, and one backward."""

        def both(way):
            score, pull, (at_image, at_baseline) = jax.vjp(partial(_change, query), way, has_aux=True)
            multipliers = pull_heads(lambda heads: pull(heads)[0], score, query.points_at_once)
            return at_image, at_baseline, multipliers

        way = query.images - query.baseline
        score, baseline_score, multipliers = fast_convolutions(both)(way)
        return complete(query, way[:, None] * multipliers, score, baseline_score, evaluations=2)


def _change(query: Query, way: Float[Array, "b ..."]) -> tuple[Scores, tuple[Scores, Scores]]:
    """The change of the scores that a change of the images makes, linear in it; and the scores at both ends."""
    differences = Differences()
    logits = differences.own(differences.run(query.logits, Pair(query.images, query.baseline, way)))
    targets = query.settled_by(logits.value)[0].targets
    scores = differences.run(partial(_scores, query.score, targets=targets), logits)
    return scores.change, (scores.value, scores.baseline)


def _scores(kind: Score, logits: Logits, targets: Int[Array, " b"] | None) -> Scores:
    if kind != "margin":
        return scores_of(kind, logits, targets)
    # As a maximum, for which there is a rule; what `scores_of` gathers depends on the image by where it is.
    others = jnp.where(_own_classes(logits.shape[1], targets), -jnp.inf, logits[:, None])
    return scores_of("logit", logits, targets) - others.max(axis=2)


def _own_classes(classes: int, targets: Int[Array, " b"] | None) -> Bool[Array, "#b heads classes"]:
    every = jnp.arange(classes)
    heads = every[None] if targets is None else targets[:, None]
    return heads[:, :, None] == every[None, None]
