"""A folder of pictures, a folder a class: `<root>/<class>/<picture>`."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from jaxclf.datasets.pictures import Pictures
from jaxclf.datasets.scan import Scan, scan, subfolders
from jaxclf.types import Split, Splits, UserError, require

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
    page: str = ""
    """Where the pictures can be fetched, named when they are not there."""

    def __post_init__(self):
        require(
            len(self.image_size) == 2 and min(self.image_size) >= 1,
            f"image_size={self.image_size}: expected height and width",
        )
        require(self.min_images >= 1, f"min_images={self.min_images}: expected at least 1")
        for name in ("train_fraction", "subset"):
            require(0 < getattr(self, name) <= 1, f"{name}={getattr(self, name)}: expected above 0, at most 1")
        rest = 1 - self.train_fraction
        require(
            0 <= self.test_fraction <= rest + 1e-9,
            f"test_fraction={self.test_fraction}: expected 0 to {rest:g}, what train_fraction leaves",
        )

    def load(self) -> Splits:
        """Scan the folder and split it; pictures are decoded when they are used."""
        root = self._find_root()
        found = scan(root)
        classes = {name: paths for name, paths in found.classes.items() if len(paths) >= self.min_images}
        if not classes:
            raise UserError(
                f"no class under {root.absolute()} has {self.min_images} readable pictures\n{self._layout()}",
                found.skipped,
            )
        parts = [self._split(paths, i) for i, paths in enumerate(classes.values())]
        total = sum(len(paths) for paths in classes.values())
        keep = total * prod(self.image_size) * 3 <= self.keep_mib * 2**20
        splits = {name: self._gather(classes, [part[name] for part in parts], keep) for name in PARTS}
        assert splits["train"] is not None
        return Splits(splits["train"], splits["validation"], splits["test"], self._remarks(found), found.skipped)

    def _find_root(self) -> Path:
        root = Path(self.root).expanduser()
        if not root.is_dir():
            raise UserError(f"no folder at {root.absolute()}\n{self._layout()}")
        for _ in range(WRAPPERS):
            folders = subfolders(root)
            inner = next((folder for folder in folders if folder.name == root.name), None)
            wrapper = folders[0] if len(folders) == 1 and subfolders(folders[0]) else inner
            if wrapper is None or not subfolders(wrapper):
                break
            root = wrapper
        return root

    def _layout(self) -> str:
        fetch = f"fetch the pictures from {self.page}\n" if self.page else ""
        return f"{fetch}expected <root>/<class>/<picture>; another place is given with --dataset.root"

    def _split(self, paths: list[Path], label: int) -> dict[str, list[Path]]:
        """The pictures of one class, shuffled and cut in three. Training gets at least one."""
        order = np.random.default_rng([self.seed, label]).permutation(len(paths))
        train = max(1, round(len(paths) * self.train_fraction))
        test = min(round(len(paths) * self.test_fraction), len(paths) - train)
        used = max(1, round(train * self.subset))
        chosen = {
            "train": order[:used],
            "validation": order[train : len(paths) - test],
            "test": order[len(paths) - test :],
        }
        return {name: [paths[i] for i in sorted(indices)] for name, indices in chosen.items()}

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
