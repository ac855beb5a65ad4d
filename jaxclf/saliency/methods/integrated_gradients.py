"""Integrated gradients along the straight line from a baseline to the image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree

from jaxclf.errors import require
from jaxclf.saliency.base import BaseMethod
from jaxclf.saliency.batching import sum_over
from jaxclf.saliency.methods.adaptive_integration import FIRST, integrate
from jaxclf.saliency.query import Attribution, Query, make_complete_attribution
from jaxclf.saliency.taps import find_layer, tap_layers
from jaxclf.types import Array, Logits, promote_float

FixedRule = Literal["gauss_legendre", "trapezoid", "midpoint", "left", "right"]
Rule = FixedRule | Literal["adaptive"]


@dataclass(frozen=True)
class IntegratedGradients(BaseMethod):
    """The difference from the baseline times the mean gradient on the straight line from the baseline to the image.

    The values sum to the change of the score from the baseline, up to `delta`, which decreases with the steps: a good
    default if there is a meaningful baseline. With a layer, the straight line is that of its output: the values sum to
    the change of the score from the baseline if all of the image passes through it.
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
    layer: str | None = None
    """Path of the module whose output is explained, such as "block/conv2", with values shaped like it; None: pixels."""

    def __post_init__(self):
        if self.rule != "adaptive":
            compute_quadrature(self.rule, self.steps)
        fits = self.layer is None or self.rule != "adaptive"
        require(fits, f"layer={self.layer!r}: the adaptive rule is for pixels; choose another rule for a layer")
        require(self.tolerance > 0, f"tolerance={self.tolerance}: expected more than 0")
        require(self.max_steps >= 2 * FIRST, f"max_steps={self.max_steps}: expected at least {2 * FIRST}")

    def explain(self, query: Query) -> Attribution:
        """Explain a query with one gradient per step, and the scores at both ends of the path."""
        if self.rule == "adaptive":
            return self._explain_adaptively(query)
        quadrature = compute_quadrature(self.rule, self.steps)
        if self.layer is not None:
            return self._explain_layer(query, self.layer, quadrature)
        split = query.split()
        end, pull = jax.vjp(split.prefix, query.images)
        start = split.prefix(query.baseline)
        query, score = query.resolve_targets(split.rest(end))
        mean = compute_mean_gradients(query, split.rest, start, end, quadrature)
        values = (query.images - query.baseline)[:, None] * query.pull_back(pull, mean)
        return make_complete_attribution(query, values, score, query.score_logits(split.rest(start)), self.steps + 2)

    def _explain_layer(self, query: Query, path: str, quadrature: tuple[np.ndarray, np.ndarray]) -> Attribution:
        layer, run = find_layer(query, path), tap_layers(query)
        logits, ends = run(query.images, layer.make_zeros())
        baseline_logits, starts = run(query.baseline, layer.make_zeros())
        query, score = query.resolve_targets(logits)
        end, start = ends[path], starts[path]

        def compute_logits(output: Float[Array, "b ..."]) -> Logits:
            return run(query.images, {path: output - end})[0]

        mean = compute_mean_gradients(query, compute_logits, start, end, quadrature)
        values = promote_float(end - start)[:, None] * promote_float(mean)
        baseline_score = query.score_logits(baseline_logits)
        return make_complete_attribution(query, values, score, baseline_score, self.steps + 2)

    def _explain_adaptively(self, query: Query) -> Attribution:
        query, score = query.resolve_targets()
        start = query.compute_scores(query.baseline)
        values, taken = integrate(query, score - start, self.tolerance, self.max_steps)
        return make_complete_attribution(query, values, score, start, taken + 2)


def compute_mean_gradients(
    query: Query,
    function: Callable[[PyTree[Array]], Logits],
    start: PyTree[Array],
    end: PyTree[Array],
    quadrature: tuple[np.ndarray, np.ndarray],
) -> PyTree[Array]:
    """Return the mean gradients of the scores on a straight line.

    Args:
        query: Examples with resolved targets.
        function: Maps a point, a tree of arrays [b, ...], to logits.
        start: The point at which the line begins.
        end: The point at which it ends.
        quadrature: Nodes and weights [steps] of a rule.

    Returns:
        A tree of arrays [b, targets, ...].
    """
    way = jax.tree.map(jnp.subtract, end, start)

    def compute_weighted(point: Float[Array, " 2"]) -> PyTree[Array]:
        node, weight = point
        place = jax.tree.map(lambda x, change: x + node.astype(x.dtype) * change, start, way)
        gradients = query.differentiate(lambda place: (function(place), None), place)[2]
        return jax.tree.map(lambda x: weight * promote_float(x), gradients)

    points = jnp.asarray(quadrature, promote_float(query.images).dtype).T
    return sum_over(compute_weighted, points, query.points_per_call)


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
