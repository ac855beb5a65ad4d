"""Guided backpropagation within a class-activation map."""

from __future__ import annotations

from dataclasses import dataclass

from jaxclf.saliency.attribution import Attribution
from jaxclf.saliency.base import BaseMethod
from jaxclf.saliency.methods.grad_cam import GradCam
from jaxclf.saliency.methods.guided_backprop import GuidedBackprop
from jaxclf.saliency.query import Query


@dataclass(frozen=True)
class GuidedGradCam(BaseMethod):
    """Guided backpropagation times Grad-CAM at the pixels' resolution: where and in what detail.

    Raises UserError as GuidedBackprop and GradCam do; images are [b, h, w, c].
    R. R. Selvaraju et al., "Grad-CAM" (2017), arXiv:1610.02391.
    """

    layer: str | None = None
    """Path of the module whose output Grad-CAM looks at, such as "block/conv2"; None is the last with [b, h, w, c]."""
    relu: bool = True
    """Whether the map is cut to 0 where it speaks against the class."""

    def explain(self, query: Query) -> Attribution:
        """Two passes forward and two backward: each method has its own way back."""
        maps = GradCam(self.layer, self.relu, "nearest").explain(query)
        guided = GuidedBackprop().explain(query)
        return guided._replace(values=guided.values * maps.values, evaluations=guided.evaluations + maps.evaluations)
