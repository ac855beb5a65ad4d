"""Images in one folder per class: `<root>/<class>/<image>`."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Literal

import numpy as np

from jaxclf.datasets.decoding import ImageFiles
from jaxclf.datasets.scan import Scan, has_files, list_subfolders, scan
from jaxclf.errors import UserError, require
from jaxclf.types import Split, Splits

PARTS = ("train", "validation", "test")
WRAPPERS = 3  # the most folders around the classes that are skipped: links may be circular


@dataclass(frozen=True)
class ImageFolder:
    """Image files in one folder per class, split by class and reproducibly into training, validation and test."""

    root: str
    """Directory with one folder per class; a single folder around it, as archives often have, is skipped."""
    image_size: tuple[int, int] = (64, 64)
    """Height and width to resize to, in pixels."""
    min_images: int = 1
    """Classes with fewer readable images are left out."""
    train_fraction: float = 0.95
    """Fraction of every class for training; what this and test_fraction leave is for validation."""
    test_fraction: float = 0.0
    """Fraction of every class for testing."""
    subset: float = 1.0
    """Fraction of the training images to use; validation and test are not reduced."""
    seed: int = 0
    """Seed of the split."""
    keep_mib: int = 1024
    """Memory limit in MiB: if all decoded images fit, they stay in memory; otherwise every epoch decodes them."""
    unreadable: Literal["error", "skip"] = "error"
    """For files that cannot be decoded: raise an error that lists them, or skip them."""
    page: str = ""
    """Web page where the images can be downloaded, for the error message if they are missing."""

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
        """Scan the folder and split it. Images are decoded when they are used.

        Returns:
            The splits: images [n, *image_size, 3], uint8.

        Raises:
            UserError: If the folder is missing or has no images, or, unless `unreadable` is "skip", if files cannot be
                decoded; they are its `items`.
        """
        root = self._find_root()
        found = scan(root)
        if found.skipped and self.unreadable == "error":
            raise UserError(
                f"{len(found.skipped):,} files in {root.absolute()} could not be decoded; fix or delete them, "
                "or set unreadable='skip' (--dataset.unreadable skip):",
                found.skipped,
            )
        classes = {name: paths for name, paths in found.classes.items() if len(paths) >= self.min_images}
        if not classes:
            raise UserError(
                f"no class in {root.absolute()} has {self.min_images} readable images\n{self._describe_layout()}",
                found.skipped,
            )
        parts = [self._split(name, paths) for name, paths in classes.items()]
        total = sum(len(paths) for paths in classes.values())
        keep = total * prod(self.image_size) * 3 <= self.keep_mib * 2**20
        splits = {name: self._gather(classes, [part[name] for part in parts], keep) for name in PARTS}
        assert splits["train"] is not None
        return Splits(splits["train"], splits["validation"], splits["test"], self._list_remarks(found), found.skipped)

    def _find_root(self) -> Path:
        try:
            root = Path(self.root).expanduser()
        except RuntimeError as error:
            raise UserError(f"root={self.root}: {error}") from error
        if not root.is_dir():
            raise UserError(f"no folder at {root.absolute()}\n{self._describe_layout()}")
        for _ in range(WRAPPERS):
            root = _find_class_folder(root) or root
        return root

    def _describe_layout(self) -> str:
        download = f"download the images from {self.page}\n" if self.page else ""
        return f"{download}expected <root>/<class>/<image>; set root in the config or with --dataset.root"

    def _split(self, name: str, paths: list[Path]) -> dict[str, list[Path]]:
        """Return the images of one class by split. Training gets at least one."""

        def digest(path: Path) -> bytes:
            # The class name is encoded in UTF-8, independent of the locale.
            return hashlib.sha256(f"{self.seed}/{name}/".encode() + os.fsencode(path.name)).digest()

        # A random order that depends on each name alone, so adding or removing an image moves few others.
        order = sorted(paths, key=digest)
        train = max(1, round(len(paths) * self.train_fraction))
        test = min(round(len(paths) * self.test_fraction), len(paths) - train)
        used = max(1, round(train * self.subset))
        rest = len(paths) - test
        return {"train": sorted(order[:used]), "validation": sorted(order[train:rest]), "test": sorted(order[rest:])}

    def _gather(self, classes: dict[str, list[Path]], parts: list[list[Path]], keep: bool) -> Split | None:
        """Return the images of one split, of which `parts` has those of each class."""
        paths = [path for part in parts for path in part]
        labels = np.repeat(np.arange(len(parts), dtype=np.int32), [len(part) for part in parts])
        return Split(ImageFiles(paths, self.image_size, keep), labels, tuple(classes)) if paths else None

    def _list_remarks(self, found: Scan) -> tuple[str, ...]:
        few = {name: len(paths) for name, paths in found.classes.items() if len(paths) < self.min_images}
        if not few:
            return ()
        names = ", ".join(f"{name} ({count})" for name, count in few.items())
        return (f"left out, with fewer than {self.min_images} images: {names}",)


def _find_class_folder(root: Path) -> Path | None:
    """Return the folder in `root` that holds the classes, if `root` only wraps it or holds the same classes too."""
    folders = list_subfolders(root)
    for inner in folders:
        beside = {folder.name for folder in folders} - {inner.name}
        classes = {folder.name for folder in list_subfolders(inner)}
        copy = inner.name == root.name and beside <= classes
        if classes and not has_files(inner) and (copy or not beside):
            return inner
    return None
