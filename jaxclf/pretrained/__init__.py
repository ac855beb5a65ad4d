"""Pretrained weights of other libraries for the networks of jaxclf."""

from jaxclf.pretrained.initial import Pretrained

__all__ = ["Pretrained"]
