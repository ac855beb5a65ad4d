"""Attribution: what a score owes to each pixel. Methods are frozen dataclasses, pure and compiled.

It stands alone: all it needs is a model, its variables and images. docs/saliency.md shows each method.
"""

from jaxclf.saliency.all_classes import AllClasses, all_classes
from jaxclf.saliency.attribution import Attribution
from jaxclf.saliency.gradient import Gradient, GradientTimesInput
from jaxclf.saliency.integrated_gradients import IntegratedGradients
from jaxclf.saliency.method import Method

__all__ = [
    "AllClasses",
    "Attribution",
    "Gradient",
    "GradientTimesInput",
    "IntegratedGradients",
    "Method",
    "all_classes",
]
