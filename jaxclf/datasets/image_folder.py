"""A folder of pictures, a folder a class: `<root>/<class>/<picture>`."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Literal

import numpy as np

from jaxclf.datasets.decoding import Pictures
from jaxclf.datasets.scan import Scan, holds_files, scan, subfolders
from jaxclf.errors import UserError, require
from jaxclf.types import Split, Splits

PARTS = ("train", "validation", "test")
WRAPPERS = 3  # folders around the classes, at most: links may go in circles


@dataclass(frozen=True)
class ImageFolder:
    """Pictures in a folder a class, split into training, validation and test by class, the same way every time."""

    root: str
    """Holds a folder a class; a folder around it, as unpacking an archive makes, is seen through."""
    image_size: tuple[int, int] = (64, 64)
    """Height and width pictures are resized to, in pixels."""
    min_images: int = 1
    """Classes with fewer readable pictures are left out."""
    train_fraction: float = 0.95
    """Share of every class to train with; what neither this nor test_fraction takes is validation."""
    test_fraction: float = 0.0
    """Share of every class to test with."""
    subset: float = 1.0
    """Share of the training pictures that is used; validation and test stay whole."""
    seed: int = 0
    """Which pictures go where."""
    keep_mib: int = 1024
    """Decoded pictures stay in memory if all of them fit in so many MiB; otherwise each epoch decodes again."""
    unreadable: Literal["error", "skip"] = "error"
    """Files that are no readable pictures: end with a list of them all, or leave them out."""
    page: str = ""
    """Where the pictures can be fetched, named when they are not there."""

    def __post_init__(self):
        require(
            len(self.image_size) == 2 and min(self.image_size) >= 1,
            f"image_size={self.image_size}: expected height and width",
        )
        require(self.seed >= 0, f"seed={self.seed}: expected at least 0")
        require(self.min_images >= 1, f"min_images={self.min_images}: expected at least 1")
        for name in ("train_fraction", "subset"):
            require(0 < getattr(self, name) <= 1, f"{name}={getattr(self, name)}: expected above 0, at most 1")
        rest = 1 - self.train_fraction
        require(
            0 <= self.test_fraction <= rest + 1e-9,
            f"test_fraction={self.test_fraction}: expected 0 to {rest:g}, what train_fraction leaves",
        )

    def load(self) -> Splits:
        """Scan the folder and split it; pictures are decoded when they are used.

        Raises UserError, with a list, where files are no readable pictures, unless they are to be left out.
        """
        root = self._find_root()
        found = scan(root)
        if found.skipped and self.unreadable == "error":
            raise UserError(
                f"{len(found.skipped):,} files under {root.absolute()} are no readable pictures; mend or remove them, "
                "or leave them out by unreadable='skip' (--dataset.unreadable skip):",
                found.skipped,
            )
        classes = {name: paths for name, paths in found.classes.items() if len(paths) >= self.min_images}
        if not classes:
            raise UserError(
                f"no class under {root.absolute()} has {self.min_images} readable pictures\n{self._layout()}",
                found.skipped,
            )
        parts = [self._split(name, paths) for name, paths in classes.items()]
        total = sum(len(paths) for paths in classes.values())
        keep = total * prod(self.image_size) * 3 <= self.keep_mib * 2**20
        splits = {name: self._gather(classes, [part[name] for part in parts], keep) for name in PARTS}
        assert splits["train"] is not None
        return Splits(splits["train"], splits["validation"], splits["test"], self._remarks(found), found.skipped)

    def _find_root(self) -> Path:
        try:
            root = Path(self.root).expanduser()
        except RuntimeError as error:
            raise UserError(f"root={self.root}: {error}") from error
        if not root.is_dir():
            raise UserError(f"no folder at {root.absolute()}\n{self._layout()}")
        for _ in range(WRAPPERS):
            root = folder_of_classes(root) or root
        return root

    def _layout(self) -> str:
        fetch = f"fetch the pictures from {self.page}\n" if self.page else ""
        return f"{fetch}expected <root>/<class>/<picture>; root is in the config, or train.py takes --dataset.root"

    def _split(self, name: str, paths: list[Path]) -> dict[str, list[Path]]:
        """The pictures of one class, ordered by chance and cut in three. Training gets at least one.

        The order is that of a digest of each name, so a picture more or less moves few others to another part.
        """

        def digest(path: Path) -> bytes:
            return hashlib.sha256(os.fsencode(f"{self.seed}/{name}/{path.name}")).digest()

        order = sorted(paths, key=digest)
        train = max(1, round(len(paths) * self.train_fraction))
        test = min(round(len(paths) * self.test_fraction), len(paths) - train)
        used = max(1, round(train * self.subset))
        rest = len(paths) - test
        return {"train": sorted(order[:used]), "validation": sorted(order[train:rest]), "test": sorted(order[rest:])}

    def _gather(self, classes: dict[str, list[Path]], parts: list[list[Path]], keep: bool) -> Split | None:
        """One part of every class as a split."""
        paths = [path for part in parts for path in part]
        labels = np.repeat(np.arange(len(parts), dtype=np.int32), [len(part) for part in parts])
        return Split(Pictures(paths, self.image_size, keep), labels, tuple(classes)) if paths else None

    def _remarks(self, found: Scan) -> tuple[str, ...]:
        few = {name: len(paths) for name, paths in found.classes.items() if len(paths) < self.min_images}
        if not few:
            return ()
        names = ", ".join(f"{name} ({count})" for name, count in few.items())
        return (f"left out, with fewer than {self.min_images} pictures: {names}",)


def folder_of_classes(root: Path) -> Path | None:
    """The folder within root that holds the classes, where root only wraps it or holds the same classes beside it."""
    folders = subfolders(root)
    for inner in folders:
        beside = {folder.name for folder in folders} - {inner.name}
        classes = {folder.name for folder in subfolders(inner)}
        copy = inner.name == root.name and beside <= classes
        if classes and not holds_files(inner) and (copy or not beside):
            return inner
    return None
