"""Layer-wise relevance propagation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxclf.errors import require
from jaxclf.saliency.attribution import Attribution
from jaxclf.saliency.base import BaseMethod
from jaxclf.saliency.methods.lrp_rules import LayerRule, Part, Relevances, Relevant
from jaxclf.saliency.query import Query, Scores, complete, pull_heads, scores_of
from jaxclf.types import Array, Logits
from jaxclf.xla.convolutions import fast_convolutions

Rule = Literal["epsilon", "gamma", "z_plus", "alpha_beta"]


@dataclass(frozen=True)
class Lrp(BaseMethod):
    """The score, handed back from layer to layer as relevance: each input gets its share of what makes the output.

    Layers are products with weights and the biases added to them, which keep their shares; what follows with one
    factor a channel, as BatchNorm in inference does, is one too, and sums of branches and mean pooling are layers
    without weights, always by the epsilon rule. ReLUs and other functions of one number pass relevance on as it is,
    maxima to the largest. What is handed back is the score at its logit; for the margin, both logits, with their
    signs. `delta` is what biases kept and rules did not conserve, less the score at the baseline.
    Raises UserError that names the operation where a model does what there is no rule for, such as attention.
    S. Bach et al., "On pixel-wise explanations for non-linear classifier decisions by layer-wise relevance
    propagation", PLOS ONE 10 (2015), equations 58 (epsilon) and 60 (alpha-beta); G. Montavon et al., "Layer-wise
    relevance propagation: an overview" (2019).
    """

    rule: Rule = "epsilon"
    """How a layer divides relevance: as inputs times weights; with positive weights counting 1 + gamma times; among
    what is positive of these products; or alpha times among the positive ones less beta times among the negative."""
    epsilon: float = 1e-9
    """Added to what relevance is divided by, away from 0. This one only guards against 0 / 0, so that without biases
    ReLU networks get the gradient times the input; larger ones, such as 0.1, hold back what weak sums would get."""
    gamma: float = 0.25
    alpha: float = 2.0
    beta: float = 1.0

    def __post_init__(self):
        rules = ", ".join(get_args(Rule))
        require(self.rule in get_args(Rule), f"rule={self.rule!r}: expected one of {rules}")
        require(self.epsilon >= 0, f"epsilon={self.epsilon}: expected at least 0")
        require(self.gamma >= 0, f"gamma={self.gamma}: expected at least 0")
        require(self.beta >= 0, f"beta={self.beta}: expected at least 0")
        apart = self.alpha - self.beta
        require(abs(apart - 1) < 1e-6, f"alpha - beta = {apart:g}: expected 1, so that relevance is conserved")

    def explain(self, query: Query) -> Attribution:
        """One pass forward and one backward, and one forward at the baseline."""
        targets, score, values = fast_convolutions(partial(self._handed_back, query))(query.images)
        return complete(query, values, score, query.replace(targets=targets).scores(query.baseline), evaluations=2)

    def _handed_back(
        self, query: Query, images: Float[Array, "b ..."]
    ) -> tuple[Any, Scores, Float[Array, "b heads ..."]]:
        relevances = Relevances(self._layer_rule(), self.epsilon)

        def logits(shares):
            outputs = relevances.own(relevances.run(query.logits, Relevant(images, shares)))
            return outputs.share, outputs.value

        _, pull, values = jax.vjp(logits, jnp.ones_like(images), has_aux=True)
        query, score = query.settled_by(values)
        start = handed_back_first(query, values, score)

        def pull_started(heads):
            return pull((heads[:, :, None] * start).sum(axis=1))[0]

        return query.targets, score, pull_heads(pull_started, score, query.points_at_once)

    def _layer_rule(self) -> LayerRule | None:
        if self.rule == "epsilon":
            return None
        if self.rule == "gamma":
            return partial(raised, self.gamma)
        return partial(by_sign, *((1.0, 0.0) if self.rule == "z_plus" else (self.alpha, self.beta)))


def handed_back_first(query: Query, logits: Logits, score: Scores) -> Float[Array, "b heads classes"]:
    """The relevance of each logit: the score for that of its class; of a margin, what each logit adds to it."""
    kind = "margin" if query.score == "margin" else "logit"
    _, pull = jax.vjp(lambda logits: scores_of(kind, logits, query.targets), logits)
    signs = pull_heads(lambda heads: pull(heads)[0], score, query.points_at_once)
    return signs * (logits[:, None] if kind == "margin" else score[:, :, None])


def raised(gamma: float, layer: Any, weights: Any, inputs: Any, terms: Any) -> tuple[Part, ...]:
    """The gamma rule."""

    def more(x):
        return x + gamma * jax.nn.relu(x)

    return (Part(1.0, layer(more(weights), terms), layer(more(weights), inputs), more),)


def by_sign(alpha: float, beta: float, layer: Any, weights: Any, inputs: Any, terms: Any) -> tuple[Part, ...]:
    """The alpha-beta rule: positive products of inputs and weights apart from negative ones."""

    def split(x):
        return jnp.where(inputs > 0, x, 0), jnp.where(inputs < 0, x, 0)

    def part(weight, first, second, of_bias):
        numerator, denominator = (
            layer(first, above) + layer(second, below) for above, below in (split(terms), split(inputs))
        )
        return Part(weight, numerator, denominator, of_bias)

    above, below = jnp.maximum(weights, 0), jnp.minimum(weights, 0)
    parts = (
        part(alpha, above, below, lambda bias: jnp.maximum(bias, 0)),
        part(-beta, below, above, lambda bias: jnp.minimum(bias, 0)),
    )
    return parts if beta else parts[:1]
