"""Eighteen drawn characters in cluttered images: a stand-in for the Simpsons dataset without a download."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from jaxclf.datasets.cartoons.characters import CHARACTERS, Character
from jaxclf.datasets.cartoons.scene import sample_scene
from jaxclf.datasets.image_folder import ImageFolder
from jaxclf.errors import require
from jaxclf.io.files import get_cache_directory, make_partial_path
from jaxclf.io.progress import track_progress
from jaxclf.types import Splits

VERSION = 1  # of the drawings; each version has its own folder
QUALITY = (40, 95)  # range of the JPEG quality


@dataclass(frozen=True)
class DrawnDataset(ABC):
    """Base class of datasets of drawn characters. They are the same on every machine, and read as an image folder."""

    subset: float = 1.0
    """Fraction of the training images to use; validation and test are not reduced."""
    directory: str | None = None
    """Directory of the drawn images; by default, `$XDG_CACHE_HOME/jaxclf` or `~/.cache/jaxclf`."""
    without: float = 0.0
    """Fraction of the training images that lose a random number of their character's parts, from none to all. A network
    trained on them has seen images without parts, which a saliency benchmark shows it. The rest of each image is
    unchanged, and so are validation and test images."""

    folder: ClassVar[str]
    """Name of the folder of images; each version of the drawings has its own."""

    def __post_init__(self):
        require(0 < self.subset <= 1, f"subset={self.subset}: expected above 0, at most 1")
        require(0 <= self.without <= 1, f"without={self.without}: expected 0 to 1")

    @property
    @abstractmethod
    def characters(self) -> tuple[Character, ...]:
        """The characters, one for each class."""

    def load(self) -> Splits:
        """Draw the images if they are missing, and read them as an image folder.

        Returns:
            The splits: images [n, 64, 64, 3], uint8.
        """
        splits = self._load_folder(0.0)
        if self.without:
            splits = replace(splits, train=self._load_folder(self.without).train)
        return replace(splits, files=())  # they are the same on every machine but for the bytes of the files

    def _load_folder(self, without: float) -> Splits:
        directory = get_cache_directory() if self.directory is None else Path(self.directory).expanduser()
        root = directory / (f"{self.folder}-without-{without:g}" if without else self.folder)
        if not root.is_dir():
            render(root, self.characters, without)
        return ImageFolder(str(root), train_fraction=0.75, test_fraction=0.2, subset=self.subset).load()


@dataclass(frozen=True)
class Cartoons(DrawnDataset):
    """6,000 RGB images, 64x64, of 18 drawn characters in unequal numbers: 75 % train, 5 % validation, 20 % test.

    They are drawn on first use, the same ones on every machine, and read as an image folder.
    """

    folder = f"cartoons-{VERSION}"

    @property
    def characters(self) -> tuple[Character, ...]:
        """The eighteen characters."""
        return CHARACTERS


def render(root: Path, characters: Sequence[Character], without: float = 0.0) -> None:
    """Draw all images of some characters to `root/<character>/`; `root` appears once all of them are written.

    Args:
        root: The directory.
        characters: The characters.
        without: Fraction of the images that lose a random number of parts.
    """
    partial = make_partial_path(root)
    try:
        for character in characters:
            (partial / character.name).mkdir(parents=True)
        images = [(label, i) for label, character in enumerate(characters) for i in range(character.images)]
        for label, i in track_progress(images, len(images), f"drawing {len(characters)} characters to {root}"):
            character = characters[label]
            random = np.random.default_rng([VERSION, label, i])
            scene = sample_scene(character, random)
            lost = _sample_lost_parts(scene.parts, without, np.random.default_rng([VERSION, label, i, 1]))
            path = partial / character.name / f"pic_{i:04d}.jpg"
            scene.draw(lost).save(path, quality=int(random.integers(*QUALITY)))
        try:
            partial.rename(root)
        except OSError:
            if not root.is_dir():  # another process may have drawn the same in the meantime
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _sample_lost_parts(parts: Sequence[str], without: float, random: np.random.Generator) -> set[str]:
    """Return no parts, or with the probability `without` a random set of a random size, every size as likely."""
    if random.random() >= without:
        return set()
    return set(random.permutation(parts)[: random.integers(len(parts) + 1)].tolist())
