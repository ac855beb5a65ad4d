"""Balanced gradients (LibraGrad): any gradient method, with a rewritten backward pass."""

from __future__ import annotations

from dataclasses import dataclass

from jaxclf.errors import require
from jaxclf.saliency.base import Method, Wrapper
from jaxclf.saliency.methods.balanced_rules import balance
from jaxclf.saliency.methods.gradient import Gradient
from jaxclf.saliency.query import Attribution, Query


@dataclass(frozen=True)
class Balanced(Wrapper):
    """A method with balanced gradients, which fit transformers: each operation conserves gradient times input.

    In a product of two values both gradients are halved; attention weights, deviations by which normalizations divide,
    and the gate in x * gate(x), as in GELU and SiLU, are constant. Other elementwise functions have the slope of the
    line from (0, f(0)) in place of their derivative. The values of the model do not change. FullGrad is complete then,
    and GradientTimesInput equals Lrp(attention="cp", epsilon=0) if elementwise functions are 0 at 0.

    Use it where plain gradients fail: normalizations cancel a gradient times input, and products double it. Raises
    UserError for methods without gradients, and names the operation if the model has one without a rule.
    F. Mehri, A. F. Shahabi, M. M. Dezfuli, M. S. Baghshah, "LibraGrad: balancing gradient flow for universally better
    vision transformer attributions" (CVPR 2025), arXiv:2411.16760.
    """

    method: Method = Gradient()
    """The method whose gradients are balanced."""

    def __post_init__(self):
        name = type(self.method).__name__
        require(self.method.gradient_based, f"Balanced({name}()): expected a method that uses gradients of the model")
        inner = self.method
        while isinstance(inner, Wrapper):
            # A second rewriting would halve the gradients of products again.
            require(not isinstance(inner, Balanced), f"Balanced({name}(…)): the method is balanced already")
            inner = inner.method

    def explain(self, query: Query) -> Attribution:
        """Explain a query by the method, with the model rewritten."""
        return self.method.explain(query.replace(rewrite=lambda function: balance(query.rewrite(function))))
