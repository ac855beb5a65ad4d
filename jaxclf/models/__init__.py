"""Models. One is a Linen module called as `model(images, train=False) -> logits`; layers worth a look are named."""

from jaxclf.models.cnn import Cnn, SimpsonsCnn
from jaxclf.models.maxout import MaxoutCnn
from jaxclf.models.mlp import Mlp
from jaxclf.models.summary import summarize

__all__ = ["Cnn", "MaxoutCnn", "Mlp", "SimpsonsCnn", "summarize"]
