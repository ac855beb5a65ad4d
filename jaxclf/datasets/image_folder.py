"""Images in one folder per class: `<root>/<class>/<image>`, or `<root>/<split>/<class>/<image>`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Literal

import numpy as np

from jaxclf.datasets.decoding import ImageFiles
from jaxclf.datasets.folders import get_relative_path, list_subfolders, to_printable
from jaxclf.datasets.layout import SPLIT_NAMES, ListedFile, find_layout
from jaxclf.datasets.recorded import restore_splits
from jaxclf.datasets.resizing import Resizing
from jaxclf.datasets.scan import describe_warnings, scan_files
from jaxclf.datasets.split_table import read_split_table
from jaxclf.datasets.splitting import (
    describe_duplicates,
    describe_splits,
    draw_splits,
    hold_out_fold,
    keep_splits,
    select_subset,
)
from jaxclf.errors import UserError, require
from jaxclf.types import FileRecord, Split, Splits

SPLITS = ("auto", "folders", "random")  # values of `splits` that are not a file


@dataclass(frozen=True)
class ImageFolder:
    """Image files in one folder per class, with the splits of their author or split by class and reproducibly."""

    root: str
    """Directory with one folder per class, or with folders such as train, val and test that have them; a single folder
    around it, as archives often have, is skipped."""
    image_size: tuple[int, int] = (64, 64)
    """Height and width to resize to, in pixels."""
    min_images: int = 1
    """Classes with fewer readable images, in all splits together, are left out."""
    splits: str = "auto"
    """folders: those in folders such as train, val and test; random: drawn by the fractions; auto: folders if there are
    such; or a CSV or JSON-lines file with the columns path, label and split."""
    train_fraction: float = 0.95
    """Fraction of every class for training; what this and test_fraction leave is for validation. For random splits."""
    test_fraction: float = 0.0
    """Fraction of every class for testing. For random splits."""
    validation_fraction: float = 0.0
    """Fraction of the training images of every class for validation, where the author's splits have none."""
    folds: int = 0
    """Folds of the images that are not for testing; one of them is for validation (0: off)."""
    fold: int = 0
    """The fold that is for validation, from 0."""
    subset: float = 1.0
    """Fraction of the training images to use; validation and test are not reduced."""
    seed: int = 0
    """Seed of the split."""
    keep_mib: int = 1024
    """Memory limit in MiB: if all decoded images fit, they stay in memory; otherwise every epoch decodes them."""
    unreadable: Literal["error", "skip"] = "error"
    """For files that cannot be decoded: raise an error that lists them, or skip them."""
    resizing: Resizing = Resizing()
    """How images are resized."""
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
        require(self.folds == 0 or self.folds > 1, f"folds={self.folds}: expected 0 or at least 2")
        require(
            0 <= self.fold < max(self.folds, 1),
            f"fold={self.fold}: expected 0 to {max(self.folds - 1, 0)}, one of {self.folds} folds",
        )
        rest = 1 - self.train_fraction
        require(
            0 <= self.test_fraction <= rest + 1e-9,
            f"test_fraction={self.test_fraction}: expected 0 to {rest:g}, what train_fraction leaves",
        )
        require(
            0 <= self.validation_fraction < 1,
            f"validation_fraction={self.validation_fraction}: expected at least 0 and below 1",
        )

    def load(self, records: Sequence[FileRecord] = (), exact: bool = False) -> Splits:
        """Scan the folder and split it. Images are decoded when they are used.

        Args:
            records: The files of a run, which keep the splits they had in it.
            exact: Whether the data must be that of the run: no file of it missing or changed, new ones left out.

        Returns:
            The splits: images [n, *image_size, 3], uint8.

        Raises:
            UserError: If the folder is missing or has no images, or, unless `unreadable` is "skip", if files cannot be
                decoded; they are its `items`.
        """
        root, classes, remarks = self._list_classes()
        listed = [file for files in classes.values() for file in files]
        verdicts = scan_files(root, [file.path for file in listed])
        skipped = [f"{to_printable(path)}: {verdict.fault}" for path, verdict in verdicts.items() if verdict.fault]
        if skipped and self.unreadable == "error":
            raise UserError(
                f"{len(skipped):,} files in {root.absolute()} could not be decoded; fix or delete them, "
                "or set unreadable='skip' (--dataset.unreadable skip):",
                skipped,
            )
        readable = [file for file in listed if not verdicts[file.path].fault]
        counts = Counter(file.label for file in readable)
        names = [name for name in classes if counts[name] >= self.min_images]
        few = [f"{name} ({counts[name]})" for name in classes if counts[name] < self.min_images]
        if not names:
            raise UserError(
                f"no class in {root.absolute()} has {self.min_images} readable images\n{self._describe_layout()}",
                skipped,
            )
        remarks += describe_warnings(verdicts)
        if few:
            remarks += [f"left out, with fewer than {self.min_images} images: {', '.join(few)}"]
        kept = set(names)
        used = [file for file in readable if file.label in kept]
        splits = self._split_files(used)
        if used[0].split is not None:
            remarks += describe_splits(used, splits)
        files = {}
        for path, label, _ in used:
            name = to_printable(get_relative_path(path, root))
            files[path] = FileRecord(name, label, splits[path], verdicts[path].digest)
        if records:
            authors = ("test",) if self.folds else ("validation", "test")
            drawn = {file.path for file in used if file.split not in authors}
            files, differences = restore_splits(files, records, drawn, exact)
            remarks += differences
        remarks += describe_duplicates(list(files.values()))
        return self._gather(files, tuple(names), tuple(remarks), tuple(skipped))

    def _list_classes(self) -> tuple[Path, dict[str, list[ListedFile]], list[str]]:
        """Return the folder of the images, the files of each class, and remarks on the folder."""
        root = self._find_root()
        if self.splits not in SPLITS:
            table = next((place for place in (Path(self.splits), root / self.splits) if place.is_file()), None)
            if table is None:
                expected = ", ".join(SPLITS)
                raise UserError(f"splits={self.splits!r}: expected one of {expected}, or a file of images and splits")
            return root, read_split_table(table, root), []
        layout = find_layout(root)
        if self.splits == "folders" and not layout.splits:
            raise UserError(
                f"splits='folders', but {layout.root} has no folders such as train and val with one folder per class; "
                f"it has {', '.join(to_printable(folder.name) for folder in list_subfolders(layout.root)) or 'none'}"
            )
        classes = layout.list_classes()
        if self.splits == "random":
            classes = {name: [file._replace(split=None) for file in files] for name, files in classes.items()}
        return layout.root, classes, list(layout.remarks)

    def _find_root(self) -> Path:
        try:
            root = Path(self.root).expanduser()
        except RuntimeError as error:
            raise UserError(f"root={self.root}: {error}") from error
        if not root.is_dir():
            raise UserError(f"no folder at {root.absolute()}\n{self._describe_layout()}")
        return root

    def _describe_layout(self) -> str:
        download = f"download the images from {self.page}\n" if self.page else ""
        return (
            f"{download}expected <root>/<class>/<image> or <root>/train/<class>/<image>; "
            "set root in the config or with --dataset.root"
        )

    def _split_files(self, files: Sequence[ListedFile]) -> dict[Path, str]:
        """Return the split of each file; empty for those that are not in the subset."""
        if files[0].split is None:
            splits = draw_splits(files, self.train_fraction, self.test_fraction, self.seed)
        else:
            splits = keep_splits(files, self.validation_fraction, self.seed)
        if self.folds:
            splits = hold_out_fold(files, splits, self.folds, self.fold, self.seed)
        return select_subset(files, splits, self.subset, self.seed) if self.subset < 1 else splits

    def _gather(
        self,
        files: Mapping[Path, FileRecord],
        names: tuple[str, ...],
        remarks: tuple[str, ...],
        skipped: tuple[str, ...],
    ) -> Splits:
        """Return the images of all splits, sorted by class."""
        labels = {name: label for label, name in enumerate(names)}
        by_class = sorted(files, key=lambda path: labels[files[path].label])
        chosen = {split: [path for path in by_class if files[path].split == split] for split in SPLIT_NAMES}
        require(bool(chosen["train"]), f"no training images in {self.root}")
        keep = sum(map(len, chosen.values())) * prod(self.image_size) * 3 <= self.keep_mib * 2**20

        def build(paths: list[Path]) -> Split:
            classes = np.array([labels[files[path].label] for path in paths], np.int32)
            return Split(ImageFiles(paths, self.image_size, keep, self.resizing), classes, names)

        validation, test = (build(chosen[split]) if chosen[split] else None for split in ("validation", "test"))
        records = tuple(files[path] for paths in chosen.values() for path in paths)
        return Splits(build(chosen["train"]), validation, test, remarks, skipped, records)
