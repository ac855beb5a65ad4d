"""Splits of image files: drawn at random by class, or those of their author."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxclf.datasets.layout import SPLIT_NAMES, ListedFile
from jaxclf.errors import UserError, require
from jaxclf.types import FileRecord


def draw_splits(files: Sequence[ListedFile], train_fraction: float, test_fraction: float, seed: int) -> dict[Path, str]:
    """Draw the split of each file, the fractions of every class. Training gets at least one image of each."""
    splits = {}
    for paths in _shuffle(files, seed).values():
        train = max(1, round(len(paths) * train_fraction))
        test = min(round(len(paths) * test_fraction), len(paths) - train)
        splits |= dict.fromkeys(paths[:train], "train") | dict.fromkeys(paths[train:], "validation")
        splits |= dict.fromkeys(paths[len(paths) - test :], "test")
    return splits


def keep_splits(files: Sequence[ListedFile], validation_fraction: float, seed: int) -> dict[Path, str]:
    """Return the split of each file by its author.

    Validation images serve as test images where there are none. Where there are no validation images then, a fraction
    of the training images of every class is drawn for validation.

    Raises:
        UserError: If a class is in one split alone, or not in training.
    """
    _check_classes(files)
    authors = {file.split for file in files}
    names = {"validation": "test"} if "test" not in authors else {}
    splits = {file.path: names.get(file.split or "", file.split or "") for file in files}
    if "validation" not in splits.values() and validation_fraction:
        for paths in _shuffle([file for file in files if file.split == "train"], seed).values():
            train = max(1, round(len(paths) * (1 - validation_fraction)))
            splits |= dict.fromkeys(paths[train:], "validation")
    return splits


def select_subset(files: Sequence[ListedFile], splits: Mapping[Path, str], subset: float, seed: int) -> dict[Path, str]:
    """Return the splits with a fraction of the training images of every class; the others are in no split."""
    left_out: list[Path] = []
    for paths in _shuffle([file for file in files if splits[file.path] == "train"], seed).values():
        left_out += paths[max(1, round(len(paths) * subset)) :]
    return {**splits, **dict.fromkeys(left_out, "")}


def hold_out_fold(
    files: Sequence[ListedFile], splits: Mapping[Path, str], folds: int, fold: int, seed: int
) -> dict[Path, str]:
    """Return the splits with one of some folds of every class for validation, and the others for training.

    The folds are those of all images that are not for testing. Adding an image moves few others to another fold.

    Raises:
        UserError: If a class has fewer images than there are folds.
    """
    drawn: dict[Path, str] = {}
    classes = _shuffle([file for file in files if splits[file.path] != "test"], seed)
    for start, (label, paths) in enumerate(sorted(classes.items())):
        require(
            len(paths) >= folds,
            f"folds={folds}: class {label} has {len(paths):,} images that are not for testing; expected one a fold",
        )
        for i, path in enumerate(paths):  # classes start at different folds, so that these have about equal sizes
            place = (i * folds // len(paths) + start) % folds
            drawn[path] = "validation" if place == fold else "train"
    return {**splits, **drawn}


def _shuffle(files: Sequence[ListedFile], seed: int) -> dict[str, list[Path]]:
    """Return the files of each class in a random order."""

    def digest(file: ListedFile) -> bytes:
        # The class name is encoded in UTF-8, independent of the locale.
        return hashlib.sha256(f"{seed}/{file.label}/".encode() + os.fsencode(file.path.name)).digest()

    # It depends on each name alone, so adding or removing an image moves few others.
    order: dict[str, list[Path]] = defaultdict(list)
    for file in sorted(files, key=digest):
        order[file.label].append(file.path)
    return order


def _check_classes(files: Sequence[ListedFile]) -> None:
    splits: dict[str, Counter[str | None]] = defaultdict(Counter)
    for file in files:
        splits[file.label][file.split] += 1
    several = len({file.split for file in files}) > 1
    faults = [
        f"{name}: only in {', '.join(map(str, counts))} ({sum(counts.values()):,} images)"
        for name, counts in splits.items()
        if "train" not in counts or (several and len(counts) == 1)
    ]
    if faults:
        raise UserError("some classes are not in training and in another split; remove them or rename folders:", faults)


def describe_splits(files: Sequence[ListedFile], splits: Mapping[Path, str]) -> list[str]:
    """Return remarks on the splits of an author."""
    counts = Counter(file.split for file in files)
    served = {} if "test" in counts else {"validation": " (as test)"}
    parts = [f"{name} {counts[name]:,}{served.get(name, '')}" for name in SPLIT_NAMES if counts[name]]
    remarks = [f"the splits are those of the data: {', '.join(parts)}; train_fraction and test_fraction do not apply"]
    if "validation" not in splits.values():
        remarks.append(
            "no validation images: only the last checkpoints are kept; validation_fraction holds out some of the "
            "training images (--dataset.validation-fraction 0.1)"
        )
    return remarks


def describe_duplicates(files: Sequence[FileRecord]) -> list[str]:
    """Return a remark for each held-out split that has images with the content of training images."""
    trained = {file.digest: file.path for file in files if file.split == "train"}
    remarks = []
    for split in ("validation", "test"):
        same = [file for file in files if file.split == split and file.digest in trained]
        if same:
            example = f"such as {same[0].path} and {trained[same[0].digest]}"
            remarks.append(f"{len(same):,} {split} images are training images too, {example}")
    return remarks
