"""Integrated gradients along the straight line from a baseline to the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp
import numpy as np

from jaxclf.errors import require
from jaxclf.saliency.base import BaseMethod
from jaxclf.saliency.batching import sum_over
from jaxclf.saliency.methods.adaptive_integration import FIRST, integrate
from jaxclf.saliency.query import Attribution, Query, make_complete_attribution

FixedRule = Literal["gauss_legendre", "trapezoid", "midpoint", "left", "right"]
Rule = FixedRule | Literal["adaptive"]


@dataclass(frozen=True)
class IntegratedGradients(BaseMethod):
    """The difference from the baseline times the mean gradient on the straight line from the baseline to the image.

    The values sum to the change of the score from the baseline, up to `delta`, which decreases with the steps: a good
    default if there is a meaningful baseline.
    M. Sundararajan, A. Taly, Q. Yan, "Axiomatic attribution for deep networks" (2017), arXiv:1703.01365.
    """

    steps: int = 50
    """Number of gradients per example."""
    rule: Rule = "gauss_legendre"
    """Quadrature rule. "adaptive" takes as many steps as each example needs, and has no reverse-mode derivative."""
    tolerance: float = 1e-3
    """Adaptive: allowed estimated error of the values (the sum of absolute values) and of their sum, relative to the
    change of the score if that is more than 1."""
    max_steps: int = 4096
    """Adaptive: largest number of gradients per example."""

    def __post_init__(self):
        if self.rule != "adaptive":
            compute_quadrature(self.rule, self.steps)
        require(self.tolerance > 0, f"tolerance={self.tolerance}: expected more than 0")
        require(self.max_steps >= 2 * FIRST, f"max_steps={self.max_steps}: expected at least {2 * FIRST}")

    def explain(self, query: Query) -> Attribution:
        """Explain a query with one gradient per step, and the scores at both ends of the path."""
        query, score = query.resolve_targets()
        start = query.compute_scores(query.baseline)
        if self.rule == "adaptive":
            values, taken = integrate(query, score - start, self.tolerance, self.max_steps)
            return make_complete_attribution(query, values, score, start, taken + 2)
        way = query.images - query.baseline
        points = jnp.asarray(compute_quadrature(self.rule, self.steps), way.dtype).T

        def weighted(point):
            node, weight = point
            return weight * query.compute_gradients(query.baseline + node * way)

        mean = sum_over(weighted, points, query.points_per_call)
        return make_complete_attribution(query, way[:, None] * mean, score, start, self.steps + 2)


def compute_quadrature(rule: FixedRule, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Return nodes [steps] in [0, 1] and their weights, which sum to 1; raise UserError for too few steps."""
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
