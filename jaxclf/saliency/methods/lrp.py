"""Layer-wise relevance propagation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from jaxclf.errors import require
from jaxclf.saliency.base import BaseMethod
from jaxclf.saliency.methods.lrp_layer_rules import (
    Box,
    LayerRule,
    LayerRules,
    Relevant,
    apply_alpha_beta_rule,
    apply_box_rule,
    apply_gamma_rule,
    apply_uniform_rule,
)
from jaxclf.saliency.methods.lrp_rules import Relevances
from jaxclf.saliency.query import Attribution, Query, Scores, make_complete_attribution, pull_per_target, select_scores
from jaxclf.types import Array, Logits
from jaxclf.xla.convolutions import rewrite_convolutions

Rule = Literal["epsilon", "gamma", "z_plus", "alpha_beta", "z_box", "w_squared", "flat"]


@dataclass(frozen=True)
class Lrp(BaseMethod):
    """Layer-wise relevance propagation: the score, divided from layer to layer among the inputs of each layer.

    A layer is a product with weights, with the biases added to it, which keep their shares of relevance, and with
    factors per channel that follow, such as those of BatchNorm in inference. Sums of branches and mean pooling are
    layers without weights, and use the epsilon rule. ReLUs and other elementwise functions pass relevance on unchanged,
    also those that are products, such as GELU; maxima pass it to the largest operand. Propagation starts with the score
    at the logit of its class; for the margin, with both logits and their signs. `delta` is the score at the
    baseline minus the relevance that biases keep and rules do not conserve.

    In transformers the defaults are the rules of AttnLRP: products of two values give each a half, also those that
    attention sums, softmax is expanded to first order at its inputs, and deviations, by which LayerNorm and other
    normalizations divide, are constant. `attention="cp"` is CP-LRP, and `residual_gamma=1.0` is ResLRP.

    Use it to favor positive evidence (`gamma`, `z_plus`, `alpha_beta`), and for transformers. Raises UserError that
    names the operation if the model has one without a rule, such as sorting.
    S. Bach et al., "On pixel-wise explanations for non-linear classifier decisions by layer-wise relevance
    propagation", PLOS ONE 10 (2015), equations 58 (epsilon) and 60 (alpha-beta); G. Montavon et al., "Layer-wise
    relevance propagation: an overview" (2019), also for z-box, w-squared and flat; R. Achtibat et al., "AttnLRP:
    attention-aware layer-wise relevance propagation for transformers" (2024), arXiv:2402.05602, propositions 3.1 to
    3.4; A. Ali et al., "XAI for transformers: better explanations through conservative propagation" (2022),
    arXiv:2202.07304.
    """

    rule: Rule = "epsilon"
    """How a layer divides relevance: in proportion to inputs times weights ("epsilon"), with positive weights
    multiplied by 1 + gamma ("gamma"), among positive products only ("z_plus"), or alpha times among positive products
    minus beta times among negative ones ("alpha_beta"). Independent of the inputs: in proportion to squared weights
    ("w_squared"), or equally ("flat"). For a layer of pixels: in proportion to products minus the least that they can
    be for pixels in [0, 1] ("z_box"). The last three give nothing to biases."""
    epsilon: float = 1e-9
    """Added to the size of denominators. The default only avoids 0 / 0, so ReLU networks without biases get the
    gradient times the input; larger values, such as 0.1, absorb relevance of weak sums. With 0 nothing is added."""
    gamma: float = 0.25
    """Extra weight of positive weights in the gamma rule."""
    alpha: float = 2.0
    """Factor of positive products in the alpha-beta rule; alpha - beta must be 1."""
    beta: float = 1.0
    """Factor of negative products in the alpha-beta rule."""
    rules: tuple[tuple[str, Rule], ...] | Mapping[str, Rule] = ()
    """Rules of some layers, by the path of the layer or of a module around it, such as {"patch_embedding": "z_box",
    "block*": "gamma"}; * is any text, and the first one that fits counts. `rule` is that of the others."""
    attention: Literal["attn", "cp"] = "attn"
    """Whether relevance is propagated to the inputs of softmax ("attn"), or attention is constant ("cp")."""
    residual_gamma: float = 0.0
    """Extra weight, where two branches are added, of the one that has the sign of the sum. For values above 0 relevance
    is at most 1 + 2 / residual_gamma times as large after it; branches that cancel make it large with 0."""

    gradient_based = False

    def __post_init__(self):
        rules = ", ".join(get_args(Rule))
        named = tuple(self.rules.items() if isinstance(self.rules, Mapping) else map(tuple, self.rules))
        object.__setattr__(self, "rules", named)
        require(self.rule in get_args(Rule), f"rule={self.rule!r}: expected one of {rules}")
        for name, rule in named:
            require(rule in get_args(Rule), f"rules: {rule!r} for {name!r}: expected one of {rules}")
        for name in ("epsilon", "gamma", "beta", "residual_gamma"):
            require(getattr(self, name) >= 0, f"{name}={getattr(self, name)}: expected at least 0")
        apart = self.alpha - self.beta
        require(abs(apart - 1) < 1e-6, f"alpha - beta = {apart:g}: expected 1, so that relevance is conserved")
        require(self.attention in ("attn", "cp"), f"attention={self.attention!r}: expected attn or cp")

    def explain(self, query: Query) -> Attribution:
        """Explain a query with one forward and one backward pass, and one forward pass at the baseline."""
        targets, score, values = rewrite_convolutions(partial(self._propagate, query))(query.images)
        return make_complete_attribution(
            query, values, score, query.replace(targets=targets).compute_scores(query.baseline), evaluations=2
        )

    def _propagate(
        self, query: Query, images: Float[Array, "b ..."]
    ) -> tuple[Int[Array, " b"] | None, Scores, Float[Array, "b targets ..."]]:
        rules = LayerRules(self._make_rule(self.rule), {name: self._make_rule(rule) for name, rule in self.rules})
        relevances = Relevances(rules, self.epsilon, self.attention == "cp", self.residual_gamma)

        def logits(shares):
            box = Box(jnp.zeros_like(images), jnp.ones_like(images), shares)
            outputs = relevances.convert(relevances.run(query.compute_logits, Relevant(images, shares, box)))
            return outputs.share, outputs.value

        _, pull, values = jax.vjp(logits, jnp.ones_like(images), has_aux=True)
        rules.require_used()
        query, score = query.resolve_targets(values)
        start = _initialize_relevance(query, values, score)

        def pull_relevance(one_hot):
            return pull((one_hot[:, :, None] * start).sum(axis=1))[0]

        return query.targets, score, pull_per_target(pull_relevance, score, query.points_per_call)

    def _make_rule(self, rule: str) -> LayerRule | None:
        """Return a rule as a function, or None for the epsilon rule."""
        rules: dict[str, LayerRule] = {
            "gamma": partial(apply_gamma_rule, self.gamma),
            "z_plus": partial(apply_alpha_beta_rule, 1.0, 0.0),
            "alpha_beta": partial(apply_alpha_beta_rule, self.alpha, self.beta),
            "z_box": apply_box_rule,
            "w_squared": partial(apply_uniform_rule, jnp.square),
            "flat": partial(apply_uniform_rule, jnp.ones_like),
        }
        return rules.get(rule)


def _initialize_relevance(query: Query, logits: Logits, score: Scores) -> Float[Array, "b targets classes"]:
    """Return the relevance of each logit: the score for the class of a target, or the terms of the margin."""
    kind = "margin" if query.score == "margin" else "logit"
    _, pull = jax.vjp(lambda logits: select_scores(kind, logits, query.targets), logits)
    signs = pull_per_target(lambda cotangents: pull(cotangents)[0], score, query.points_per_call)
    return signs * (logits[:, None] if kind == "margin" else score[:, :, None])
