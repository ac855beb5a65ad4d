"""Attribution: what a score owes to each pixel. Methods are frozen dataclasses, pure and compiled.

It stands alone: all it needs is a model, its variables and images. docs/saliency.md shows each method.
"""

from jaxclf.saliency.all_classes import AllClasses, all_classes
from jaxclf.saliency.attribution import Attribution
from jaxclf.saliency.blur_integrated_gradients import BlurIntegratedGradients
from jaxclf.saliency.class_activation import GradCam, GradCamPlusPlus, HiResCam, LayerCam
from jaxclf.saliency.deep_lift import DeepLift
from jaxclf.saliency.expected_gradients import ExpectedGradients
from jaxclf.saliency.faithfulness import Curve, deletion, infidelity, insertion, sensitivity_n
from jaxclf.saliency.full_grad import FullGrad
from jaxclf.saliency.gradient import Gradient, GradientTimesInput
from jaxclf.saliency.guided_backprop import Deconvnet, GuidedBackprop
from jaxclf.saliency.guided_grad_cam import GuidedGradCam
from jaxclf.saliency.guided_integrated_gradients import GuidedIntegratedGradients
from jaxclf.saliency.integrated_gradients import IntegratedGradients
from jaxclf.saliency.lrp import Lrp
from jaxclf.saliency.measures import completeness, entropy, gini, pointing_game
from jaxclf.saliency.method import Method
from jaxclf.saliency.occlusion import Occlusion
from jaxclf.saliency.rise import Rise
from jaxclf.saliency.road import road
from jaxclf.saliency.robustness import local_lipschitz, sensitivity_max
from jaxclf.saliency.sanity import Randomization, input_invariance, parameter_randomization
from jaxclf.saliency.score_cam import ScoreCam
from jaxclf.saliency.smoothgrad import SmoothGrad, SmoothGradSquared, VarGrad
from jaxclf.saliency.xrai import Xrai

__all__ = [
    "AllClasses",
    "Attribution",
    "BlurIntegratedGradients",
    "Curve",
    "Deconvnet",
    "DeepLift",
    "ExpectedGradients",
    "FullGrad",
    "GradCam",
    "GradCamPlusPlus",
    "Gradient",
    "GradientTimesInput",
    "GuidedBackprop",
    "GuidedGradCam",
    "GuidedIntegratedGradients",
    "HiResCam",
    "IntegratedGradients",
    "LayerCam",
    "Lrp",
    "Method",
    "Occlusion",
    "Randomization",
    "Rise",
    "ScoreCam",
    "SmoothGrad",
    "SmoothGradSquared",
    "VarGrad",
    "Xrai",
    "all_classes",
    "completeness",
    "deletion",
    "entropy",
    "gini",
    "infidelity",
    "input_invariance",
    "insertion",
    "local_lipschitz",
    "parameter_randomization",
    "pointing_game",
    "road",
    "sensitivity_max",
    "sensitivity_n",
]
