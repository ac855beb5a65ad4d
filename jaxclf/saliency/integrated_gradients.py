"""Gradients integrated along the straight line from a baseline to the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp
import numpy as np

from jaxclf.saliency.attribution import Attribution
from jaxclf.saliency.method import BaseMethod
from jaxclf.saliency.query import Query, complete
from jaxclf.saliency.rows import sum_over
from jaxclf.types import require

Rule = Literal["gauss_legendre", "trapezoid", "midpoint", "left", "right"]


@dataclass(frozen=True)
class IntegratedGradients(BaseMethod):
    """(x - x0) times the mean gradient on the way from the baseline x0 to x; the values sum to the change of the score.

    M. Sundararajan, A. Taly, Q. Yan, "Axiomatic attribution for deep networks" (2017), arXiv:1703.01365, equation 1.
    """

    steps: int = 50
    """Gradients an example."""
    rule: Rule = "gauss_legendre"
    """Where they are taken."""

    def __post_init__(self):
        nodes_and_weights(self.rule, self.steps)

    def explain(self, query: Query) -> Attribution:
        """As many gradients as steps, and the scores at both ends."""
        query, score = query.settled()
        way = query.images - query.baseline

        def weighted(node, weight):
            return weight * query.gradients(query.baseline + node * way)

        points = nodes_and_weights(self.rule, self.steps)
        mean = sum_over(lambda point: weighted(*point), jnp.asarray(points, way.dtype).T, query.points_at_once)
        return complete(query, way[:, None] * mean, score, query.scores(query.baseline), self.steps + 2)


def nodes_and_weights(rule: Rule, steps: int) -> tuple[np.ndarray, np.ndarray]:
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
