"""Models: Linen modules called as `model(images, train=False) -> logits`, with named layers."""

from jaxclf.models.cnn import Cnn, SimpsonsCnn
from jaxclf.models.convnext import ConvNext
from jaxclf.models.efficientnet import EfficientNetLite
from jaxclf.models.initializers import Normal, VarianceScaling
from jaxclf.models.maxout import MaxoutCnn
from jaxclf.models.mlp import Mlp
from jaxclf.models.normalize import IMAGENET, Normalize
from jaxclf.models.resnet import ResNet
from jaxclf.models.summary import summarize
from jaxclf.models.vit import Vit
from jaxclf.models.whitened import WhitenedCnn

__all__ = [
    "IMAGENET",
    "Cnn",
    "ConvNext",
    "EfficientNetLite",
    "MaxoutCnn",
    "Mlp",
    "Normal",
    "Normalize",
    "ResNet",
    "SimpsonsCnn",
    "VarianceScaling",
    "Vit",
    "WhitenedCnn",
    "summarize",
]
