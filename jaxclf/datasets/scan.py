"""Which files of a folder of classes are readable pictures. What was found is kept, so a second scan only looks."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxclf.datasets.pictures import decoders, fault
from jaxclf.datasets.progress import shown
from jaxclf.files import cache_directory, read_json, write_json
from jaxclf.types import UserError

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp"}
LITTER = {"thumbs.db", "desktop.ini"}  # what systems leave in folders, beside hidden files


@dataclass(frozen=True)
class Scan:
    """The readable pictures of each class, by name, and a line for each file that is left out."""

    classes: dict[str, list[Path]]
    skipped: tuple[str, ...]


def scan(root: Path) -> Scan:
    """Decode every picture under `root/<class>/` once, unless its size and time are those of an earlier scan."""
    known_file = cache_directory() / "scans" / f"{hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]}.json"
    known = read_known(known_file)
    files = {folder.name: sorted(files_under(folder)) for folder in subfolders(root)}
    every = [path for paths in files.values() for path in paths]
    stamps = {str(path): stamp(path) for path in every}
    faults = {path: known[path][2] for path in stamps if path in known and known[path][:2] == stamps[path]}
    new = [path for path in every if str(path) not in faults]
    if new:
        found = shown(decoders().map(reason, new), len(new), f"checking the pictures of {root}")
        faults |= {str(path): why for path, why in zip(new, found, strict=True)}
        write_known(known_file, {path: [*stamps[path], faults[path]] for path in stamps})
    readable = {name: [path for path in paths if faults[str(path)] is None] for name, paths in files.items()}
    skipped = (f"{path}: {faults[str(path)]}" for path in every if faults[str(path)] is not None)
    return Scan(readable, tuple(skipped))


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder by name, hidden ones apart."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def files_under(folder: Path) -> Iterator[Path]:
    """Every file under a folder, links followed, but each folder once and not the one it is in: they may go round."""
    entered = {folder.parent.resolve()}
    for parent, folders, names in os.walk(folder, followlinks=True):
        if Path(parent).resolve() in entered:
            folders.clear()
            continue
        entered.add(Path(parent).resolve())
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent, name) for name in names if not name.startswith(".") and name.lower() not in LITTER)


def stamp(path: Path) -> list[int]:
    """Size in bytes and time of the last change in nanoseconds; zeros for a link that leads nowhere."""
    try:
        status = path.stat()
    except OSError:
        return [0, 0]
    return [status.st_size, status.st_mtime_ns]


def reason(path: Path) -> str | None:
    """Why a file is left out, or None."""
    if not path.exists():
        return "a link that leads nowhere"
    if not path.is_file():
        return "not a file"
    if path.suffix.lower() not in SUFFIXES:
        return f"its name does not end as a picture's ({', '.join(sorted(SUFFIXES))})"
    return fault(path)


def read_known(file: Path) -> dict[str, Any]:
    """What an earlier scan found: size, time and fault by path. Nothing where that is not readable."""
    try:
        known = read_json(file)
        entries = known.items()
    except (UserError, AttributeError):
        return {}
    return {path: entry for path, entry in entries if isinstance(entry, list) and len(entry) == 3}


def write_known(file: Path, known: dict[str, Any]) -> None:
    """Keep what was found; a cache that cannot be written only makes the next scan slower."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, known)
    except OSError:
        return
