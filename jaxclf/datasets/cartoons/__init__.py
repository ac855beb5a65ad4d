"""Eighteen drawn characters in cluttered pictures: the Simpsons study without its download."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxclf.datasets.cartoons.characters import CHARACTERS, Character
from jaxclf.datasets.cartoons.drawing import draw
from jaxclf.datasets.image_folder import ImageFolder
from jaxclf.errors import require
from jaxclf.io.files import cache_directory, partial_name
from jaxclf.io.progress import shown
from jaxclf.types import Splits

VERSION = 1  # of the drawings; another one is drawn into another folder
QUALITY = (40, 95)  # of JPEG, from, up to


@dataclass(frozen=True)
class Cartoons:
    """6,000 colour pictures, 64x64, of 18 characters in unequal numbers: 75 % train, 5 % validation, 20 % test.

    They are drawn on first use, the same everywhere, and are then an image folder like any other.
    """

    subset: float = 1.0
    """Share of the training pictures that is used; validation and test stay whole."""
    directory: str | None = None
    """Where the pictures are drawn to; without one, `$XDG_CACHE_HOME/jaxclf` or `~/.cache/jaxclf`."""

    def __post_init__(self):
        require(0 < self.subset <= 1, f"subset={self.subset}: expected above 0, at most 1")

    def load(self) -> Splits:
        """Draw the pictures where they are missing, and read them as an image folder."""
        place = cache_directory() if self.directory is None else Path(self.directory).expanduser()
        root = place / f"cartoons-{VERSION}"
        if not root.is_dir():
            render(root, CHARACTERS)
        return ImageFolder(str(root), train_fraction=0.75, test_fraction=0.2, subset=self.subset).load()


def render(root: Path, characters: Sequence[Character]) -> None:
    """Draw every picture of the characters to `root/<character>/`, which is there whole or not at all."""
    partial = partial_name(root)
    try:
        for character in characters:
            (partial / character.name).mkdir(parents=True)
        total, place = sum(character.images for character in characters), f"{len(characters)} characters to {root}"
        for character, label, i in shown(pictures(characters), total, f"drawing {place}"):
            random = np.random.default_rng([VERSION, label, i])
            path = partial / character.name / f"pic_{i:04d}.jpg"
            draw(character, random).save(path, quality=int(random.integers(*QUALITY)))
        try:
            partial.rename(root)
        except OSError:
            if not root.is_dir():  # unless another process has drawn the same meanwhile
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def pictures(characters: Sequence[Character]) -> Iterator[tuple[Character, int, int]]:
    """Every picture to draw: its character, the number of that, and its number among the character's pictures."""
    for label, character in enumerate(characters):
        for i in range(character.images):
            yield character, label, i
