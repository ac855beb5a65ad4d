"""Folders and files of a folder of images: which are classes, which are the system's, and how names are printed."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

SYSTEM_FILES = {"thumbs.db", "desktop.ini"}  # ignored, as hidden files are
SYSTEM_FOLDERS = {"__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found"}  # likewise


def to_printable(name: str | Path) -> str:
    """Return a file name as text; bytes that are not UTF-8, which the system allows, are replaced."""
    return os.fsencode(name).decode("utf-8", "replace")


def get_relative_path(path: Path, root: Path) -> str:
    """Return a path relative to a folder; faster than `os.path.relpath` where it is in it."""
    text, prefix = os.fspath(path), os.path.join(root, "")  # noqa: PTH118 - with the separator
    return text.removeprefix(prefix) if text.startswith(prefix) else os.path.relpath(path, root)


def name_classes(folders: Collection[str]) -> dict[str, str]:
    """Return the class name of each folder name. Where two print alike, bytes that are not UTF-8 become escapes."""
    printed = Counter(map(to_printable, folders))
    return {
        folder: name
        if printed[name := to_printable(folder)] == 1
        else os.fsencode(folder).decode("utf-8", "backslashreplace")
        for folder in folders
    }


def list_subfolders(folder: Path) -> list[Path]:
    """Return the folders in a folder, sorted, without hidden ones and those of operating systems."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_dir() and not path.name.startswith(".") and path.name.lower() not in SYSTEM_FOLDERS
    )


def list_files(folder: Path) -> list[Path]:
    """Return the files in a folder itself, sorted, without hidden and system files."""
    return sorted(path for path in folder.iterdir() if path.is_file() and _is_wanted(path.name))


def find_files(folder: Path) -> Iterator[Path]:
    """Yield every file in a folder and its subfolders, without hidden and system files.

    Links are followed, but no folder is entered twice, nor the parent: links may be circular. A folder that cannot be
    listed is yielded itself.
    """
    entered, errors = {folder.parent.resolve()}, []
    for parent, folders, names in os.walk(folder, followlinks=True, onerror=errors.append):
        if Path(parent).resolve() in entered:
            folders.clear()
            continue
        entered.add(Path(parent).resolve())
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent, name) for name in names if _is_wanted(name))
    yield from (Path(error.filename) for error in errors)


def _is_wanted(name: str) -> bool:
    return not name.startswith(".") and name.lower() not in SYSTEM_FILES
