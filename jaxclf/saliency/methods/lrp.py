"""Layer-wise relevance propagation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from jaxclf.errors import require
from jaxclf.saliency.base import BaseMethod
from jaxclf.saliency.methods.lrp_rules import LayerRule, Linear, Part, Relevances, Relevant
from jaxclf.saliency.query import Attribution, Query, Scores, make_complete_attribution, pull_per_target, select_scores
from jaxclf.types import Array, Logits
from jaxclf.xla.convolutions import rewrite_convolutions

Rule = Literal["epsilon", "gamma", "z_plus", "alpha_beta"]


@dataclass(frozen=True)
class Lrp(BaseMethod):
    """Layer-wise relevance propagation: the score, divided from layer to layer among the inputs of each layer.

    A layer is a product with weights, with the biases added to it, which keep their shares of relevance, and with
    factors per channel that follow, such as those of BatchNorm in inference. Sums of branches and mean pooling are
    layers without weights, and use the epsilon rule. ReLUs and other elementwise functions pass relevance on unchanged,
    maxima pass it to the largest operand. Propagation starts with the score at the logit of its class; for the margin,
    with both logits and their signs. `delta` is the relevance that biases keep and rules do not conserve, without the
    score at the baseline.

    Use it to favor positive evidence (`gamma`, `z_plus`, `alpha_beta`). Raises UserError that names the operation if
    the model has one without a rule, such as attention.
    S. Bach et al., "On pixel-wise explanations for non-linear classifier decisions by layer-wise relevance
    propagation", PLOS ONE 10 (2015), equations 58 (epsilon) and 60 (alpha-beta); G. Montavon et al., "Layer-wise
    relevance propagation: an overview" (2019).
    """

    rule: Rule = "epsilon"
    """How a layer divides relevance: in proportion to inputs times weights ("epsilon"), with positive weights
    multiplied by 1 + gamma ("gamma"), among positive products only ("z_plus"), or alpha times among positive products
    minus beta times among negative ones ("alpha_beta")."""
    epsilon: float = 1e-9
    """Added to the size of denominators. The default only avoids 0 / 0, so ReLU networks without biases get the
    gradient times the input; larger values, such as 0.1, absorb relevance of weak sums."""
    gamma: float = 0.25
    """Extra weight of positive weights in the gamma rule."""
    alpha: float = 2.0
    """Factor of positive products in the alpha-beta rule; alpha - beta must be 1."""
    beta: float = 1.0
    """Factor of negative products in the alpha-beta rule."""

    def __post_init__(self):
        rules = ", ".join(get_args(Rule))
        require(self.rule in get_args(Rule), f"rule={self.rule!r}: expected one of {rules}")
        require(self.epsilon >= 0, f"epsilon={self.epsilon}: expected at least 0")
        require(self.gamma >= 0, f"gamma={self.gamma}: expected at least 0")
        require(self.beta >= 0, f"beta={self.beta}: expected at least 0")
        apart = self.alpha - self.beta
        require(abs(apart - 1) < 1e-6, f"alpha - beta = {apart:g}: expected 1, so that relevance is conserved")

    def explain(self, query: Query) -> Attribution:
        """Explain a query with one forward and one backward pass, and one forward pass at the baseline."""
        targets, score, values = rewrite_convolutions(partial(self._propagate, query))(query.images)
        return make_complete_attribution(
            query, values, score, query.replace(targets=targets).compute_scores(query.baseline), evaluations=2
        )

    def _propagate(
        self, query: Query, images: Float[Array, "b ..."]
    ) -> tuple[Int[Array, " b"] | None, Scores, Float[Array, "b targets ..."]]:
        relevances = Relevances(self._make_layer_rule(), self.epsilon)

        def logits(shares):
            outputs = relevances.convert(relevances.run(query.compute_logits, Relevant(images, shares)))
            return outputs.share, outputs.value

        _, pull, values = jax.vjp(logits, jnp.ones_like(images), has_aux=True)
        query, score = query.resolve_targets(values)
        start = _initialize_relevance(query, values, score)

        def pull_relevance(one_hot):
            return pull((one_hot[:, :, None] * start).sum(axis=1))[0]

        return query.targets, score, pull_per_target(pull_relevance, score, query.points_per_call)

    def _make_layer_rule(self) -> LayerRule | None:
        if self.rule == "epsilon":
            return None
        if self.rule == "gamma":
            return partial(_apply_gamma_rule, self.gamma)
        return partial(_apply_alpha_beta_rule, *((1.0, 0.0) if self.rule == "z_plus" else (self.alpha, self.beta)))


def _initialize_relevance(query: Query, logits: Logits, score: Scores) -> Float[Array, "b targets classes"]:
    """Return the relevance of each logit: the score for the class of a target, or the terms of the margin."""
    kind = "margin" if query.score == "margin" else "logit"
    _, pull = jax.vjp(lambda logits: select_scores(kind, logits, query.targets), logits)
    signs = pull_per_target(lambda cotangents: pull(cotangents)[0], score, query.points_per_call)
    return signs * (logits[:, None] if kind == "margin" else score[:, :, None])


def _apply_gamma_rule(gamma: float, layer: Linear, weights: Array, inputs: Array, terms: Array) -> tuple[Part, ...]:
    """Apply the gamma rule: weights w become w + gamma * max(w, 0)."""

    def emphasize(x):
        return x + gamma * jax.nn.relu(x)

    return (Part(1.0, layer(emphasize(weights), terms), layer(emphasize(weights), inputs), emphasize),)


def _apply_alpha_beta_rule(
    alpha: float, beta: float, layer: Linear, weights: Array, inputs: Array, terms: Array
) -> tuple[Part, ...]:
    """Apply the alpha-beta rule: positive products of inputs and weights separately from negative ones."""

    def split(x):
        return jnp.where(inputs > 0, x, 0), jnp.where(inputs < 0, x, 0)

    def make_part(weight, first, second, bias_term):
        numerator, denominator = (
            layer(first, above) + layer(second, below) for above, below in (split(terms), split(inputs))
        )
        return Part(weight, numerator, denominator, bias_term)

    above, below = jnp.maximum(weights, 0), jnp.minimum(weights, 0)
    parts = (
        make_part(alpha, above, below, lambda bias: jnp.maximum(bias, 0)),
        make_part(-beta, below, above, lambda bias: jnp.minimum(bias, 0)),
    )
    return parts if beta else parts[:1]
