"""The gradient of a score by the pixels, and its product with them."""

from __future__ import annotations

from dataclasses import dataclass

from jaxclf.saliency.attribution import Attribution
from jaxclf.saliency.base import BaseMethod
from jaxclf.saliency.query import Query, attribution, complete


@dataclass(frozen=True)
class Gradient(BaseMethod):
    """The gradient of the score by each pixel, signed.

    K. Simonyan, A. Vedaldi, A. Zisserman, "Deep inside convolutional networks" (2013), arXiv:1312.6034.
    """

    def explain(self, query: Query) -> Attribution:
        """One pass forward and one backward."""
        query, score, gradients = query.settled_with_gradients()
        return attribution(query, gradients, score, evaluations=1)


@dataclass(frozen=True)
class GradientTimesInput(BaseMethod):
    """The gradient times the pixel's distance from the baseline: exact where the score is linear.

    A. Shrikumar et al., "Not just a black box" (2016), arXiv:1605.01713.
    """

    def explain(self, query: Query) -> Attribution:
        """One pass forward and one backward, and one forward at the baseline."""
        query, score, gradients = query.settled_with_gradients()
        values = (query.images - query.baseline)[:, None] * gradients
        return complete(query, values, score, query.scores(query.baseline), evaluations=2)
