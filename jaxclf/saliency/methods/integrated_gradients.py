"""Gradients integrated along the straight line from a baseline to the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp
import numpy as np

from jaxclf.errors import require
from jaxclf.saliency.attribution import Attribution
from jaxclf.saliency.base import BaseMethod
from jaxclf.saliency.batching import sum_over
from jaxclf.saliency.methods.adaptive_integration import FIRST, integrate
from jaxclf.saliency.query import Query, complete

FixedRule = Literal["gauss_legendre", "trapezoid", "midpoint", "left", "right"]
Rule = FixedRule | Literal["adaptive"]


@dataclass(frozen=True)
class IntegratedGradients(BaseMethod):
    """(x - x0) times the mean gradient on the way from the baseline x0 to x; the values sum to the change of the score.

    M. Sundararajan, A. Taly, Q. Yan, "Axiomatic attribution for deep networks" (2017), arXiv:1703.01365.
    """

    steps: int = 50
    """Gradients an example."""
    rule: Rule = "gauss_legendre"
    """Where they are taken. "adaptive" takes as many as each example needs; it is not differentiable in reverse."""
    tolerance: float = 1e-3
    """Adaptive: largest estimated error of the values, summed without signs, and of their sum, a share of the change of
    the score where that is more than 1."""
    max_steps: int = 4096
    """Adaptive: most gradients an example."""

    def __post_init__(self):
        if self.rule != "adaptive":
            nodes_and_weights(self.rule, self.steps)
        require(self.tolerance > 0, f"tolerance={self.tolerance}: expected more than 0")
        require(self.max_steps >= 2 * FIRST, f"max_steps={self.max_steps}: expected at least {2 * FIRST}")

    def explain(self, query: Query) -> Attribution:
        """As many gradients as steps, and the scores at both ends."""
        query, score = query.settled()
        start = query.scores(query.baseline)
        if self.rule == "adaptive":
            values, taken = integrate(query, score - start, self.tolerance, self.max_steps)
            return complete(query, values, score, start, taken + 2)
        way = query.images - query.baseline
        points = jnp.asarray(nodes_and_weights(self.rule, self.steps), way.dtype).T

        def weighted(point):
            node, weight = point
            return weight * query.gradients(query.baseline + node * way)

        mean = sum_over(weighted, points, query.points_at_once)
        return complete(query, way[:, None] * mean, score, start, self.steps + 2)


def nodes_and_weights(rule: FixedRule, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes [steps] in [0, 1] and weights that sum to 1. Raises UserError for too few steps."""
    least = 2 if rule == "trapezoid" else 1
    require(steps >= least, f"steps={steps}: expected at least {least}")
    if rule == "gauss_legendre":
        nodes, weights = np.polynomial.legendre.leggauss(steps)
        return (nodes + 1) / 2, weights / 2
    if rule == "trapezoid":
        weights = np.full(steps, 1 / (steps - 1))
        weights[[0, -1]] /= 2
        return np.linspace(0, 1, steps), weights
    shift = {"left": 0.0, "midpoint": 0.5, "right": 1.0}[rule]
    return (np.arange(steps) + shift) / steps, np.full(steps, 1 / steps)
