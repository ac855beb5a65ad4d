"""Datasets: frozen dataclasses whose `load()` returns `Splits` of images [n, h, w, c] and labels [n]."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, runtime_checkable

from jaxclf.datasets.arrays import Arrays
from jaxclf.datasets.cartoons import Cartoons
from jaxclf.datasets.cifar import Cifar10, Cifar100
from jaxclf.datasets.idx import Idx
from jaxclf.datasets.image_folder import ImageFolder
from jaxclf.datasets.mnist import Mnist
from jaxclf.datasets.parts import PartsMix
from jaxclf.datasets.resizing import Resizing
from jaxclf.datasets.tfds import Tfds
from jaxclf.errors import UserError
from jaxclf.types import FileRecord, Splits


@runtime_checkable
class Dataset(Protocol):
    """A dataset of a config: a frozen dataclass that loads its data."""

    def load(self) -> Splits:
        """Return the splits, the same ones in every call. Images may be read later, by index."""
        ...


def load_splits(
    dataset: Dataset | None, records: Sequence[FileRecord] = (), exact: bool = False, started_in: str = ""
) -> Splits:
    """Load the data of a config, or of a run again.

    Args:
        dataset: The dataset of the config.
        records: The files of the run; those of an image folder keep the splits they had in it.
        exact: Whether the data must be that of the run.
        started_in: The working directory of the run, where a relative root is looked for if it is not in this one.

    Raises:
        UserError: If there is no dataset.
    """
    if dataset is None:
        raise UserError("the config has no dataset, and no images were given; name a folder with --dataset.root DIR")
    if isinstance(dataset, Cifar10 | Cifar100 | ImageFolder) and started_in:
        elsewhere = Path(started_in, dataset.root)
        if not Path(dataset.root).expanduser().exists() and elsewhere.exists():
            dataset = replace(dataset, root=str(elsewhere))
    return dataset.load(records, exact) if isinstance(dataset, ImageFolder) else dataset.load()


def get_resizing(dataset: Dataset | None) -> Resizing:
    """Return how image files are resized for a network that was trained on a dataset."""
    return getattr(dataset, "resizing", Resizing())


__all__ = [
    "Arrays",
    "Cartoons",
    "Cifar10",
    "Cifar100",
    "Dataset",
    "Idx",
    "ImageFolder",
    "Mnist",
    "PartsMix",
    "Resizing",
    "Tfds",
    "get_resizing",
    "load_splits",
]
