"""Layout of a folder of images: one folder per class, or such folders in folders named train, val and test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from jaxclf.datasets.folders import find_files, list_files, list_subfolders, name_classes, to_printable
from jaxclf.datasets.pillow import SUFFIXES
from jaxclf.errors import UserError

SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "eval"),
}
WRAPPERS = 3  # the most folders around the classes that are skipped: links may be circular


class ListedFile(NamedTuple):
    """An image file, and what its place or a table says about it."""

    path: Path
    label: str
    """The name of its class."""
    split: str | None
    """The split its author has put it in; None where there is none."""


@dataclass(frozen=True)
class Layout:
    """Where the classes are."""

    root: Path
    """The folder of the class folders, or of the folders of the splits."""
    splits: Mapping[str, Path]
    """The folder of each split; empty where the classes are in `root`."""
    remarks: tuple[str, ...] = ()
    """What is there besides, and not used."""

    def list_classes(self) -> dict[str, list[ListedFile]]:
        """Return the files of each class, which may be none, sorted by class, split and path."""
        places = list(self.splits.items()) or [(None, self.root)]
        folders = [(split, folder) for split, place in places for folder in list_subfolders(place)]
        names = name_classes({folder.name for _, folder in folders})
        classes: dict[str, list[ListedFile]] = {names[name]: [] for name in sorted(names)}
        for split, folder in folders:
            name = names[folder.name]
            classes[name] += [ListedFile(path, name, split) for path in sorted(find_files(folder))]
        return classes


def parse_split(name: str) -> str | None:
    """Return the split that a name stands for in any case, such as "validation" for "Val"; None for other names."""
    return next((split for split, names in SPLIT_NAMES.items() if name.strip().lower() in names), None)


def find_layout(root: Path) -> Layout:
    """Find the classes under a folder, through folders that only wrap them.

    Splits are recognized where a training folder and another one have classes in them, and no images of their own.

    Raises:
        UserError: If two folders are the same split, such as `val` and `valid`.
    """
    remarks: list[str] = []
    for _ in range(WRAPPERS + 1):
        splits = _find_splits(root)
        if len(splits) > 1:
            return Layout(root, splits, (*remarks, *_list_unused(root, list(splits.values()))))
        inner = _find_class_folder(root)
        if inner is None:
            break
        if parse_split(inner.name) == "train":
            remarks += _list_unused(root, [inner])
        root = inner
    return Layout(root, {}, (*remarks, *_list_unused(root, list_subfolders(root))))


def _find_splits(root: Path) -> dict[str, Path]:
    """Return the folders of the splits in a folder; empty where there is none for training."""
    found: dict[str, Path] = {}
    for folder in list_subfolders(root):
        split = parse_split(folder.name)
        if split is None or list_files(folder) or not list_subfolders(folder):
            continue
        if split in found:
            raise UserError(
                f"{root} has two folders of {split} images, {found[split].name} and {folder.name}; merge them, or list "
                "the images and their splits in a file (--dataset.splits FILE)"
            )
        found[split] = folder
    return {split: found[split] for split in SPLIT_NAMES if split in found} if "train" in found else {}


def _find_class_folder(root: Path) -> Path | None:
    """Return the folder in `root` that holds the classes, if `root` only wraps it or holds the same classes too."""
    folders = list_subfolders(root)
    for inner in folders:
        train = parse_split(inner.name) == "train"
        beside = {each.name for each in folders if each != inner and not (train and _is_unlabeled_split(each))}
        classes = {folder.name for folder in list_subfolders(inner)}
        copy = inner.name == root.name and beside <= classes
        if classes and not list_files(inner) and (copy or not beside):
            return inner
    return None


def _is_unlabeled_split(folder: Path) -> bool:
    """Return whether a folder has the name of a split and images without classes, as test sets of competitions have."""
    return parse_split(folder.name) in ("validation", "test") and not list_subfolders(folder)


def _list_unused(root: Path, used: list[Path]) -> Iterator[str]:
    """Yield a remark on the images and on the folders that are beside those in use."""
    images = [path for path in list_files(root) if path.suffix.lower() in SUFFIXES]
    if images:
        yield f"not used: {len(images):,} images beside the folders in {to_printable(root)}"
    for folder in list_subfolders(root):
        if folder not in used:
            yield f"not used: {len(list(find_files(folder))):,} files in {to_printable(folder)}"
