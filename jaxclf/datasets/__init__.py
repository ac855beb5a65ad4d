"""Datasets: frozen dataclasses whose `load()` returns `Splits` of images [n, h, w, c] and labels [n]."""

from typing import Protocol, runtime_checkable

from jaxclf.datasets.arrays import Arrays
from jaxclf.datasets.cartoons import Cartoons
from jaxclf.datasets.idx import Idx
from jaxclf.datasets.image_folder import ImageFolder
from jaxclf.datasets.mnist import Mnist
from jaxclf.datasets.tfds import Tfds
from jaxclf.types import Splits


@runtime_checkable
class Dataset(Protocol):
    """A dataset of a config: a frozen dataclass that loads its data."""

    def load(self) -> Splits:
        """Return the splits, the same ones in every call. Images may be read later, by index."""
        ...


__all__ = ["Arrays", "Cartoons", "Dataset", "Idx", "ImageFolder", "Mnist", "Tfds"]
