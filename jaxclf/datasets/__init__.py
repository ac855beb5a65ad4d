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
from jaxclf.datasets.tfds import Tfds
from jaxclf.types import FileRecord, Splits


@runtime_checkable
class Dataset(Protocol):
    """A dataset of a config: a frozen dataclass that loads its data."""

    def load(self) -> Splits:
        """Return the splits, the same ones in every call. Images may be read later, by index."""
        ...


def load_splits(
    dataset: Dataset, records: Sequence[FileRecord] = (), exact: bool = False, started_in: str = ""
) -> Splits:
    """Load the data of a run again.

    Args:
        dataset: The dataset of the run.
        records: The files of the run; those of an image folder keep the splits they had in it.
        exact: Whether the data must be that of the run.
        started_in: The working directory of the run, where a relative root is looked for if it is not in this one.
    """
    if isinstance(dataset, Cifar10 | Cifar100 | ImageFolder) and started_in:
        elsewhere = Path(started_in, dataset.root)
        if not Path(dataset.root).expanduser().exists() and elsewhere.exists():
            dataset = replace(dataset, root=str(elsewhere))
    return dataset.load(records, exact) if isinstance(dataset, ImageFolder) else dataset.load()


__all__ = ["Arrays", "Cartoons", "Cifar10", "Cifar100", "Dataset", "Idx", "ImageFolder", "Mnist", "Tfds", "load_splits"]
