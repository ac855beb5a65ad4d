"""Files that are written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import math
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxclf.errors import UserError


def cache_directory() -> Path:
    """Where jaxclf keeps what it can make again: `$XDG_CACHE_HOME/jaxclf` or `~/.cache/jaxclf`."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "jaxclf"
    except RuntimeError as error:
        raise UserError(f"there is no place for a cache: {error}; set XDG_CACHE_HOME to a directory") from error


def partial_name(path: Path) -> Path:
    """A name beside `path` for what is not whole yet; no process of any machine that shares the disk has the same."""
    return path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path to write to, in the same directory, that takes the name `path` when the block ends without an error."""
    partial = partial_name(path)
    try:
        yield partial
        sync(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Make a file, or the names in a directory, outlive a loss of power."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole."""
    with whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, data: Any) -> None:
    """Write JSON, indented, whole."""
    write_text(path, json_text(data))


def json_text(data: Any) -> str:
    """JSON, indented."""
    return json.dumps(finite(data), indent=2, allow_nan=False) + "\n"


def finite(data: Any) -> Any:
    """JSON data with null for the numbers that JSON does not have: infinite ones and NaN."""
    if isinstance(data, dict):
        return {name: finite(value) for name, value in data.items()}
    if isinstance(data, list | tuple):
        return [finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def digest(data: Any) -> str:
    """The SHA-256 of JSON data, whatever the order of its names."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def read_json(path: Path) -> Any:
    """Read JSON; raises UserError that names the file when it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"there is no {path.absolute()}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path.absolute()} is not readable as JSON: {error}") from error
