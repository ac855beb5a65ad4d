"""Readers of weight files, which run nothing that a file says: safetensors and PyTorch."""

from jaxclf.pretrained.readers.weight_file import WeightFile, read_weights

__all__ = ["WeightFile", "read_weights"]
