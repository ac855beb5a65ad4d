"""Saliency methods, which attribute a class score to the input pixels, and metrics to evaluate them.

A method is a frozen dataclass, called as `method(model, variables, images, targets, key=, baseline=)`. All it needs is
a model, its variables and images. docs/saliency.md describes each method and metric.
"""

from jaxclf.saliency.adapters import adapt_equinox, adapt_haiku, adapt_keras, adapt_nnx
from jaxclf.saliency.all_classes import AllClasses, all_classes
from jaxclf.saliency.base import Method
from jaxclf.saliency.features import segment_images
from jaxclf.saliency.methods.attention_rollout import AttentionRollout
from jaxclf.saliency.methods.balanced import Balanced
from jaxclf.saliency.methods.blur_integrated_gradients import BlurIntegratedGradients
from jaxclf.saliency.methods.conductance import Conductance
from jaxclf.saliency.methods.deep_lift import DeepLift
from jaxclf.saliency.methods.expected_gradients import ExpectedGradients
from jaxclf.saliency.methods.full_grad import FullGrad
from jaxclf.saliency.methods.generic_attention import GenericAttention
from jaxclf.saliency.methods.grad_cam import GradCam, GradCamPlusPlus, HiResCam, LayerCam
from jaxclf.saliency.methods.gradient import Gradient, GradientTimesInput
from jaxclf.saliency.methods.guided_backprop import Deconvnet, GuidedBackprop
from jaxclf.saliency.methods.guided_grad_cam import GuidedGradCam
from jaxclf.saliency.methods.guided_integrated_gradients import GuidedIntegratedGradients
from jaxclf.saliency.methods.integrated_gradients import IntegratedGradients
from jaxclf.saliency.methods.legrad import LeGrad
from jaxclf.saliency.methods.lrp import Lrp
from jaxclf.saliency.methods.occlusion import Occlusion
from jaxclf.saliency.methods.rise import Rise
from jaxclf.saliency.methods.score_cam import ScoreCam
from jaxclf.saliency.methods.shapley_sampling import ShapleySampling
from jaxclf.saliency.methods.smoothgrad import SmoothGrad, SmoothGradSquared, VarGrad
from jaxclf.saliency.methods.xrai import Xrai
from jaxclf.saliency.metrics.catalog import MEASURES
from jaxclf.saliency.metrics.curves import Curve, deletion, insertion, srg
from jaxclf.saliency.metrics.faithfulness import faithfulness_correlation, infidelity, sensitivity_n
from jaxclf.saliency.metrics.localization import (
    localization_auc,
    pointing_game,
    relevance_mass_accuracy,
    relevance_rank_accuracy,
    top_k_intersection,
)
from jaxclf.saliency.metrics.measures import completeness, entropy, gini
from jaxclf.saliency.metrics.randomization import ClassSimilarity, efficient_randomization, random_logit
from jaxclf.saliency.metrics.regions import irof, saco, single_deletion
from jaxclf.saliency.metrics.road import road
from jaxclf.saliency.metrics.robustness import local_lipschitz, sensitivity_max
from jaxclf.saliency.metrics.sanity import Randomization, input_invariance, parameter_randomization
from jaxclf.saliency.metrics.stability import relative_stability
from jaxclf.saliency.query import DEFAULT_MAX_ROWS, Attribution
from jaxclf.saliency.sampling import make_metric_keys
from jaxclf.saliency.units import select_units

__all__ = [
    "DEFAULT_MAX_ROWS",
    "MEASURES",
    "AllClasses",
    "AttentionRollout",
    "Attribution",
    "Balanced",
    "BlurIntegratedGradients",
    "ClassSimilarity",
    "Conductance",
    "Curve",
    "Deconvnet",
    "DeepLift",
    "ExpectedGradients",
    "FullGrad",
    "GenericAttention",
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
    "LeGrad",
    "Lrp",
    "Method",
    "Occlusion",
    "Randomization",
    "Rise",
    "ScoreCam",
    "ShapleySampling",
    "SmoothGrad",
    "SmoothGradSquared",
    "VarGrad",
    "Xrai",
    "adapt_equinox",
    "adapt_haiku",
    "adapt_keras",
    "adapt_nnx",
    "all_classes",
    "completeness",
    "deletion",
    "efficient_randomization",
    "entropy",
    "faithfulness_correlation",
    "gini",
    "infidelity",
    "input_invariance",
    "insertion",
    "irof",
    "local_lipschitz",
    "localization_auc",
    "make_metric_keys",
    "parameter_randomization",
    "pointing_game",
    "random_logit",
    "relative_stability",
    "relevance_mass_accuracy",
    "relevance_rank_accuracy",
    "road",
    "saco",
    "segment_images",
    "select_units",
    "sensitivity_max",
    "sensitivity_n",
    "single_deletion",
    "srg",
    "top_k_intersection",
]
