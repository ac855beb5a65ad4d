"""Readers of safetensors and PyTorch weight files, without code execution."""

from jaxclf.pretrained.readers.weight_file import WeightFile, read_weights

__all__ = ["WeightFile", "read_weights"]
