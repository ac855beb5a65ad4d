"""Scan of a folder of classes for readable images. Results are cached, so a second scan decodes only new files."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import PIL

from jaxclf.datasets.decoding import find_fault, get_decoders
from jaxclf.errors import UserError
from jaxclf.io.files import get_cache_directory, read_json, write_json
from jaxclf.io.progress import track_progress

SUFFIXES = {".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".webp"}
SYSTEM_FILES = {"thumbs.db", "desktop.ini"}  # ignored, as hidden files are
SYSTEM_FOLDERS = {"__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found"}  # likewise
AT_ONCE = 1_000  # files that are given to the threads together
VERSION = 1  # of the cached results, which also depend on Pillow


@dataclass(frozen=True)
class Scan:
    """The readable images of each class, by name, and one line for each file that is skipped."""

    classes: dict[str, list[Path]]
    skipped: tuple[str, ...]


def scan(root: Path) -> Scan:
    """Decode every image in `root/<class>/`, except those whose size and time an earlier scan has seen."""
    files = {folder: sorted(find_files(folder)) for folder in list_subfolders(root)}
    every = [path for paths in files.values() for path in paths]
    keys = {path: str([str(path.relative_to(root)), *_get_stamp(path)]) for path in every}
    cached = _read_cache(root)
    faults: dict[Path, str | None] = {path: cached[keys[path]] for path in every if keys[path] in cached}
    new = [path for path in every if path not in faults]
    temporary = {}
    try:
        checked = track_progress(_check_files(new), len(new), f"checking the images in {root}") if new else ()
        for path, (fault, lasts) in checked:
            (faults if lasts else temporary)[path] = fault
    finally:  # an interrupted scan keeps what it has found
        if new:
            _write_cache(root, {keys[path]: fault for path, fault in faults.items()})
    faults |= temporary
    names = _name_classes(list(files))
    readable = {names[folder]: [path for path in paths if not faults[path]] for folder, paths in files.items()}
    return Scan(readable, tuple(f"{to_printable(path)}: {faults[path]}" for path in every if faults[path]))


def to_printable(name: str | Path) -> str:
    """Return a file name as text; bytes that are not UTF-8, which the system allows, are replaced."""
    return os.fsencode(name).decode("utf-8", "replace")


def _name_classes(folders: list[Path]) -> dict[Path, str]:
    """Return the class name of each folder. Where two print alike, bytes that are not UTF-8 are written as escapes."""
    printed = Counter(to_printable(folder.name) for folder in folders)
    return {
        folder: name
        if printed[name := to_printable(folder.name)] == 1
        else os.fsencode(folder.name).decode("utf-8", "backslashreplace")
        for folder in folders
    }


def list_subfolders(folder: Path) -> list[Path]:
    """Return the folders in a folder, sorted, without hidden ones and those of operating systems."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_dir() and not path.name.startswith(".") and path.name.lower() not in SYSTEM_FOLDERS
    )


def has_files(folder: Path) -> bool:
    """Return True if there are files in a folder itself, apart from hidden and system files."""
    return any(path.is_file() and _is_wanted(path.name) for path in folder.iterdir())


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


def _get_stamp(path: Path) -> list[int]:
    """Return the size in bytes and the time of modification in nanoseconds, or zeros if they are unknown."""
    try:
        status = path.stat()
    except OSError:
        return [0, 0]
    return [status.st_size, status.st_mtime_ns]


def _check_files(paths: list[Path]) -> Iterator[tuple[Path, tuple[str | None, bool]]]:
    """Yield every path with the result of `_check_file`."""
    for start in range(0, len(paths), AT_ONCE):
        part = paths[start : start + AT_ONCE]
        yield from zip(part, get_decoders().map(_check_file, part), strict=True)


def _check_file(path: Path) -> tuple[str | None, bool]:
    """Return why a file is skipped, or None, and True if that holds until the file changes."""
    try:
        if not path.exists():
            return "broken link", False
        if not path.is_file():
            return "a folder that cannot be read" if path.is_dir() else "not a file", False
        if path.suffix.lower() not in SUFFIXES:
            return f"not an image by its suffix (expected {', '.join(sorted(SUFFIXES))})", True
        return find_fault(path), True
    except (OSError, MemoryError) as error:
        return getattr(error, "strerror", None) or type(error).__name__, False


def _get_cache_file(root: Path) -> Path:
    """Return the file of cached results for a folder; raise UserError for a user without a home directory."""
    name = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]
    return get_cache_directory() / "scans" / f"{name}-{VERSION}-{PIL.__version__}.json"


def _read_cache(root: Path) -> dict[str, str | None]:
    """Return the results of an earlier scan by path, size and time; nothing if there are none that can be read."""
    try:
        cached = read_json(_get_cache_file(root))
    except UserError:
        return {}
    entries = cached.items() if isinstance(cached, dict) else ()
    return {key: fault for key, fault in entries if fault is None or isinstance(fault, str)}


def _write_cache(root: Path, faults: dict[str, str | None]) -> None:
    try:
        file = _get_cache_file(root)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, faults)
    except (OSError, UnicodeError, UserError):
        return  # the next scan is slower, nothing else
