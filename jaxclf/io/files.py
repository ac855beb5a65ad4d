"""Atomic writes, JSON and CSV files, and the cache directory."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from jaxclf.errors import UserError

Json: TypeAlias = Any
"""Data that JSON can hold: None, booleans, numbers, strings, lists, and dictionaries with string keys."""


def get_cache_directory() -> Path:
    """Return the directory of files that can be made again: `$XDG_CACHE_HOME/jaxclf` or `~/.cache/jaxclf`."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "jaxclf"
    except RuntimeError as error:
        raise UserError(f"no cache directory: {error}; set XDG_CACHE_HOME to a directory") from error


def make_partial_path(path: Path) -> Path:
    """Return a path beside `path` for an unfinished file or directory, different in every call and process."""
    return path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a path in the same directory to write to; it is renamed to `path` if the block ends without an error."""
    partial = make_partial_path(path)
    try:
        yield partial
        sync(partial)
        partial.replace(path)
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk has no name in the system's error
        raise
    finally:
        partial.unlink(missing_ok=True)


def choose_name(name: str, taken: set[str]) -> str:
    """Return a file name that is not taken, with a number from 2 if it is, and add it to those taken.

    Names that differ in case only are the same file on some systems.
    """
    free, number = name, 1
    while free.casefold() in taken:
        number += 1
        free = f"{name}-{number}"
    taken.add(free.casefold())
    return free


def sync(path: Path) -> None:
    """Flush a file, or the entries of a directory, to disk, so that they survive a power failure."""
    if os.name == "nt" and path.is_dir():
        return  # Windows can open no directory
    # Windows flushes only files that are open for writing.
    opened = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_rows(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file with a header atomically."""
    with atomic_write(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)


def write_json(path: Path, data: Json) -> None:
    """Write an indented JSON file atomically."""
    write_text(path, format_json(data))


def format_json(data: Json) -> str:
    """Return data as indented JSON."""
    return json.dumps(replace_non_finite(data), indent=2, allow_nan=False) + "\n"


def replace_non_finite(data: Json) -> Json:
    """Replace infinite numbers and NaN, which JSON cannot hold, with None."""
    if isinstance(data, dict):
        return {name: replace_non_finite(value) for name, value in data.items()}
    if isinstance(data, list | tuple):
        return [replace_non_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def hash_json(data: Json) -> str:
    """Return the SHA-256 of JSON data, regardless of the order of keys."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def read_json(path: Path) -> Json:
    """Read a JSON file; raise UserError with its path if it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"there is no {path.absolute()}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path.absolute()} is not readable as JSON: {error}") from error
