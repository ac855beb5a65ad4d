"""Which files of a folder of classes are readable pictures. What was found is kept, so a second scan only looks."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import PIL

from jaxclf.datasets.decoding import decoders, fault
from jaxclf.errors import UserError
from jaxclf.io.files import cache_directory, read_json, write_json
from jaxclf.io.progress import shown

SUFFIXES = {".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".webp"}
LITTER = {"thumbs.db", "desktop.ini"}  # what systems leave in folders, beside hidden files
AT_ONCE = 1_000  # files given to the threads together
VERSION = 1  # of the verdicts; they also depend on Pillow


@dataclass(frozen=True)
class Scan:
    """The readable pictures of each class, by name, and a line for each file that is left out."""

    classes: dict[str, list[Path]]
    skipped: tuple[str, ...]


def scan(root: Path) -> Scan:
    """Decode every picture under `root/<class>/` once, unless its size and time are those of an earlier scan."""
    place = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]
    known_file = cache_directory() / "scans" / f"{place}-{VERSION}-{PIL.__version__}.json"
    files = {folder: sorted(files_under(folder)) for folder in subfolders(root)}
    every = [path for paths in files.values() for path in paths]
    stamps = {path: [str(path.relative_to(root)), *stamp(path)] for path in every}
    known = read_known(known_file)
    faults: dict[Path, str | None] = {path: known[str(stamps[path])] for path in every if str(stamps[path]) in known}
    new = [path for path in every if path not in faults]
    passing = {}  # verdicts on the system, which another time may be others
    try:
        for path, (verdict, lasts) in shown(verdicts(new), len(new), f"checking the pictures of {root}") if new else ():
            (faults if lasts else passing)[path] = verdict
    finally:
        if new:
            write_known(known_file, {str(stamps[path]): verdict for path, verdict in faults.items()})
    faults |= passing
    readable = {printable(folder.name): [path for path in paths if not faults[path]] for folder, paths in files.items()}
    return Scan(readable, tuple(f"{printable(path)}: {faults[path]}" for path in every if faults[path]))


def verdicts(paths: list[Path]) -> Iterator[tuple[Path, tuple[str | None, bool]]]:
    """Every file, why it is left out or None, and whether that lasts as long as the file is what it is."""
    for start in range(0, len(paths), AT_ONCE):
        part = paths[start : start + AT_ONCE]
        yield from zip(part, decoders().map(reason, part), strict=True)


def printable(name: str | Path) -> str:
    """A name as text: bytes that are no UTF-8, which the system allows, become question marks."""
    return os.fsencode(name).decode("utf-8", "replace")


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder by name, hidden ones apart."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def holds_files(folder: Path) -> bool:
    """Whether there are files in a folder itself, hidden ones and litter apart."""
    return any(path.is_file() and is_wanted(path.name) for path in folder.iterdir())


def is_wanted(name: str) -> bool:
    """Whether a file of that name could be meant as a picture."""
    return not name.startswith(".") and name.lower() not in LITTER


def files_under(folder: Path) -> Iterator[Path]:
    """Every file under a folder, links followed, but each folder once and not the one it is in: they may go round.

    A folder that cannot be listed is given itself.
    """
    entered, errors = {folder.parent.resolve()}, []
    for parent, folders, names in os.walk(folder, followlinks=True, onerror=errors.append):
        if Path(parent).resolve() in entered:
            folders.clear()
            continue
        entered.add(Path(parent).resolve())
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent, name) for name in names if is_wanted(name))
    yield from (Path(error.filename) for error in errors)


def stamp(path: Path) -> list[int]:
    """Size in bytes and time of the last change in nanoseconds; zeros where the system does not tell."""
    try:
        status = path.stat()
    except OSError:
        return [0, 0]
    return [status.st_size, status.st_mtime_ns]


def reason(path: Path) -> tuple[str | None, bool]:
    """Why a file is left out, or None, and whether that lasts as long as the file is what it is."""
    try:
        if not path.exists():
            return "a link that leads nowhere", False
        if not path.is_file():
            return "a folder that cannot be read" if path.is_dir() else "not a file", False
        if path.suffix.lower() not in SUFFIXES:
            return f"its name does not end as a picture's ({', '.join(sorted(SUFFIXES))})", True
        return fault(path), True
    except (OSError, MemoryError) as error:
        return getattr(error, "strerror", None) or type(error).__name__, False


def read_known(file: Path) -> dict[str, str | None]:
    """What an earlier scan found, by path, size and time. Nothing where that is not readable."""
    try:
        known = read_json(file)
    except UserError:
        return {}
    entries = known.items() if isinstance(known, dict) else ()
    return {key: verdict for key, verdict in entries if verdict is None or isinstance(verdict, str)}


def write_known(file: Path, known: dict[str, str | None]) -> None:
    """Keep what was found; a cache that cannot be written only makes the next scan slower."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, known)
    except (OSError, UnicodeError):
        return
