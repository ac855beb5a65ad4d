"""Scan of image files: which can be read, and the digests of their contents. A second scan reads only new files."""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from jaxclf.datasets.decoding import find_fault, get_decoders
from jaxclf.datasets.folders import get_relative_path, to_printable
from jaxclf.datasets.pillow import collect_warnings, describe_decoders
from jaxclf.errors import UserError
from jaxclf.io.files import get_cache_directory, read_json, write_json
from jaxclf.io.progress import track_progress

BYTE_LIMIT = 2**30  # of a file; checked before it is read
AT_ONCE = 1_000  # files that are given to the threads together
VERSION = 3  # of the cached results


class Verdict(NamedTuple):
    """What a scan finds out about a file."""

    fault: str | None
    """Why it cannot be read; None if it can."""
    digest: str
    """SHA-256 of its content, in hexadecimal; empty if it cannot be read."""
    warning: str = ""
    """What Pillow warns of, such as damaged EXIF data."""


def scan_files(root: Path, files: Sequence[Path]) -> dict[Path, Verdict]:
    """Decode and digest image files under a folder, except those whose size and time an earlier scan has seen."""
    keys = {path: str([get_relative_path(path, root), *_get_stamp(path)]) for path in files}
    cached = _read_cache(root)
    verdicts = {path: cached[keys[path]] for path in files if keys[path] in cached}
    new = [path for path in files if path not in verdicts]
    temporary = {}
    try:
        checked = track_progress(_check_files(new), len(new), f"checking the images in {root}") if new else ()
        for path, (verdict, lasts) in checked:
            (verdicts if lasts else temporary)[path] = verdict
    finally:  # an interrupted scan keeps what it has found
        if new:
            _write_cache(root, {keys[path]: verdict for path, verdict in verdicts.items()})
    verdicts |= temporary
    return {path: verdicts[path] for path in files}


def describe_warnings(verdicts: Mapping[Path, Verdict]) -> list[str]:
    """Return a line for each kind of warning, which names a file and counts the others."""
    kinds: dict[str, list[Path]] = defaultdict(list)
    for path, verdict in verdicts.items():
        if verdict.warning:
            kinds[re.sub(r"\d+", "0", verdict.warning)].append(path)
    lines = []
    for first, *others in kinds.values():
        more = f" and {len(others):,} more" if others else ""
        lines.append(f"{to_printable(first)}{more}: {verdicts[first].warning}")
    return lines


def _get_stamp(path: Path) -> list[int]:
    """Return the size in bytes and the time of modification in nanoseconds, or zeros if they are unknown."""
    try:
        status = path.stat()
    except OSError:
        return [0, 0]
    return [status.st_size, status.st_mtime_ns]


def _check_files(paths: list[Path]) -> Iterator[tuple[Path, tuple[Verdict, bool]]]:
    """Yield every path with the result of `_check_file`."""
    for start in range(0, len(paths), AT_ONCE):
        part = paths[start : start + AT_ONCE]
        yield from zip(part, get_decoders().map(_check_file, part), strict=True)


def _check_file(path: Path) -> tuple[Verdict, bool]:
    """Return the verdict on a file, and True if it holds until the file changes."""
    try:
        if not path.exists():
            return Verdict("broken link", ""), False
        if not path.is_file():
            return Verdict("a folder that cannot be read" if path.is_dir() else "not a file", ""), False
        size = path.stat().st_size
        if size > BYTE_LIMIT:
            return Verdict(f"{size:,} bytes, more than {BYTE_LIMIT:,}", ""), True
        content = path.read_bytes()  # once, for both
        with collect_warnings() as warned:
            fault = find_fault(io.BytesIO(content))
        return Verdict(fault, "" if fault else hashlib.sha256(content).hexdigest(), "".join(warned[:1])), True
    except (OSError, MemoryError) as error:
        return Verdict(getattr(error, "strerror", None) or type(error).__name__, ""), False


def _get_cache_file(root: Path) -> Path:
    """Return the file of cached results for a folder; raise UserError for a user without a home directory."""
    name = hashlib.sha256(os.fsencode(root.resolve()) + describe_decoders().encode()).hexdigest()[:16]
    return get_cache_directory() / "scans" / f"{name}-{VERSION}.json"


def _read_cache(root: Path) -> dict[str, Verdict]:
    """Return the results of an earlier scan by path, size and time; nothing if there are none that can be read."""
    try:
        cached = read_json(_get_cache_file(root))
        verdicts = {key: Verdict(*verdict) for key, verdict in cached.items()}
    except (UserError, AttributeError, TypeError, ValueError):
        return {}
    valid = all(
        isinstance(each.fault, str | None) and isinstance(each.digest, str) and isinstance(each.warning, str)
        for each in verdicts.values()
    )
    return verdicts if valid else {}


def _write_cache(root: Path, verdicts: dict[str, Verdict]) -> None:
    try:
        file = _get_cache_file(root)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, verdicts)
    except (OSError, UnicodeError, UserError):
        return  # the next scan is slower, nothing else
