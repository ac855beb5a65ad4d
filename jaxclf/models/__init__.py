"""Models: Linen modules called as `model(images, train=False) -> logits`, with named layers."""

from jaxclf.models.cnn import Cnn, SimpsonsCnn
from jaxclf.models.maxout import MaxoutCnn
from jaxclf.models.mlp import Mlp
from jaxclf.models.normalize import IMAGENET, Normalize
from jaxclf.models.summary import summarize

__all__ = ["IMAGENET", "Cnn", "MaxoutCnn", "Mlp", "Normalize", "SimpsonsCnn", "summarize"]
