"""Datasets. One is a frozen dataclass whose `load()` returns `Splits` of images [n, h, w, c] and labels [n]."""

from typing import Protocol, runtime_checkable

from jaxclf.datasets.cartoons import Cartoons
from jaxclf.datasets.idx import Idx
from jaxclf.datasets.image_folder import ImageFolder
from jaxclf.datasets.mnist import Mnist
from jaxclf.datasets.tfds import Tfds
from jaxclf.types import Splits


@runtime_checkable
class Dataset(Protocol):
    """What a config's `dataset` is: a frozen dataclass that knows how to load itself."""

    def load(self) -> Splits:
        """Read the data, or leave it to be read by index. The same splits every time."""
        ...


__all__ = ["Cartoons", "Dataset", "Idx", "ImageFolder", "Mnist", "Tfds"]
