"""Datasets: frozen dataclasses whose `load()` returns `Splits` of images [n, h, w, c] and labels [n]."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, runtime_checkable

from jaxclf.datasets.arrays import Arrays
from jaxclf.datasets.cartoons import Cartoons
from jaxclf.datasets.cifar import Cifar10, Cifar100
from jaxclf.datasets.idx import Idx
from jaxclf.datasets.image_folder import SPLITS, ImageFolder
from jaxclf.datasets.mnist import Mnist
from jaxclf.datasets.parts import PartsMix
from jaxclf.datasets.resizing import Resizing
from jaxclf.datasets.tfds import Tfds
from jaxclf.errors import UserError
from jaxclf.types import FileRecord, Splits

PATHS: dict[type, tuple[str, ...]] = {
    Cartoons: ("directory",),
    Cifar10: ("root",),
    Cifar100: ("root",),
    Idx: ("directory",),
    ImageFolder: ("root", "splits"),
    PartsMix: ("directory",),
    Tfds: ("data_dir",),
}
"""The fields of datasets that can be paths."""


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
        started_in: The working directory of the run, where relative paths are looked for if they are not in this one.

    Raises:
        UserError: If there is no dataset.
    """
    if dataset is None:
        raise UserError('the config has no dataset; give it one, such as ImageFolder("photographs", (224, 224))')
    if started_in:
        dataset = _find_elsewhere(dataset, Path(started_in))
    return dataset.load(records, exact) if isinstance(dataset, ImageFolder) else dataset.load()


def _find_elsewhere(dataset: Dataset, directory: Path) -> Dataset:
    """Return a dataset whose relative paths that are not here are those in another directory, where they are there."""
    changes = {}
    for name in PATHS.get(type(dataset), ()):
        path = getattr(dataset, name)
        if path and path not in SPLITS and not Path(path).expanduser().exists() and (directory / path).exists():
            changes[name] = str(directory / path)
    return replace(dataset, **changes) if changes else dataset  # pyright: ignore[reportArgumentType]


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
