"""The gradient of a score with respect to the pixels, and its product with them."""

from __future__ import annotations

from dataclasses import dataclass

from jaxclf.saliency.base import BaseMethod
from jaxclf.saliency.query import Attribution, Query, make_attribution, make_complete_attribution


@dataclass(frozen=True)
class Gradient(BaseMethod):
    """The gradient of the score with respect to the pixels, with signs.

    The fastest method, and the basis of others: how the score changes with each pixel, to first order.
    K. Simonyan, A. Vedaldi, A. Zisserman, "Deep inside convolutional networks" (2013), arXiv:1312.6034.
    """

    def explain(self, query: Query) -> Attribution:
        """Explain a query with one forward and one backward pass."""
        query, score, gradients = query.resolve_with_gradients()
        return make_attribution(query, gradients, score, evaluations=1)


@dataclass(frozen=True)
class GradientTimesInput(BaseMethod):
    """The gradient times the difference of the image from the baseline.

    A first-order estimate of each pixel's contribution to the score; exact if the score is linear.
    A. Shrikumar et al., "Not just a black box" (2016), arXiv:1605.01713.
    """

    def explain(self, query: Query) -> Attribution:
        """Explain a query with one forward and one backward pass, and one forward pass at the baseline."""
        query, score, gradients = query.resolve_with_gradients()
        values = (query.images - query.baseline)[:, None] * gradients
        return make_complete_attribution(query, values, score, query.compute_scores(query.baseline), evaluations=2)
