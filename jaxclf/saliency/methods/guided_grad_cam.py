"""Guided Grad-CAM: guided backpropagation times a class activation map."""

from __future__ import annotations

from dataclasses import dataclass

from jaxclf.saliency.base import BaseMethod
from jaxclf.saliency.methods.grad_cam import GradCam
from jaxclf.saliency.methods.guided_backprop import GuidedBackprop
from jaxclf.saliency.query import Attribution, Query


@dataclass(frozen=True)
class GuidedGradCam(BaseMethod):
    """Guided backpropagation times Grad-CAM, upsampled to the images [b, h, w, c].

    Grad-CAM localizes the class, guided backpropagation adds detail. Raises UserError like GuidedBackprop and GradCam.
    R. R. Selvaraju et al., "Grad-CAM" (2017), arXiv:1610.02391.
    """

    layer: str | None = None
    """Path of the module whose output Grad-CAM uses, such as "block/conv2"; None: as in GradCam."""
    relu: bool = True
    """Set negative values of the Grad-CAM map, evidence against the class, to 0."""

    def explain(self, query: Query) -> Attribution:
        """Explain a query with two forward and two backward passes, one of each for each method."""
        maps = GradCam(self.layer, self.relu, "nearest").explain(query)
        guided = GuidedBackprop().explain(query)
        return guided._replace(values=guided.values * maps.values, evaluations=guided.evaluations + maps.evaluations)
