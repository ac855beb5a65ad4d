"""The manifest of a directory: what each of its files must be, so that a flipped bit is found before it is believed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from jaxclf.errors import UserError
from jaxclf.io.files import digest, finite, sync, write_text

MANIFEST = "manifest.json"
SEAL = "sha256"  # of the manifest without this line


class DamagedError(UserError):
    """A directory is not what its manifest says; `items` name the files."""


def write_manifest(directory: Path, content: dict[str, Any]) -> None:
    """Write down the sizes and digests of all files under a directory, and some content (JSON); all are synced."""
    for name in names(directory):
        sync(directory / name)
    files = {name: describe(directory / name) for name in sorted(names(directory))}
    write_text(directory / MANIFEST, sealed(finite(content) | {"files": files}))


def read_manifest(directory: Path) -> dict[str, Any]:
    """The content of a manifest and, as `files`, what it says of them; raises DamagedError unless it is as written."""
    try:
        text = (directory / MANIFEST).read_text(encoding="utf-8")
        content = json.loads(text)
        del content[SEAL]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise DamagedError(f"{directory / MANIFEST} is damaged", [f"{MANIFEST}: {error}"]) from error
    if sealed(content) != text:
        raise DamagedError(f"{directory / MANIFEST} is damaged", [f"{MANIFEST}: not as it was written"])
    return content


def check_files(directory: Path, content: dict[str, Any]) -> None:
    """Raise DamagedError unless every file is there with its size and digest, and no other."""
    files, found = content["files"], names(directory)
    problems = [f"{name}: missing" for name in files.keys() - found]
    problems += [f"{name}: not in the manifest" for name in found - files.keys()]
    problems += [
        f"{name}: {describe(directory / name)} where {files[name]} was written"
        for name in files.keys() & found
        if describe(directory / name) != files[name]
    ]
    if problems:
        raise DamagedError(f"{directory} is damaged", sorted(problems))


def names(directory: Path) -> set[str]:
    """The files under a directory, as paths relative to it; the manifest is none of them."""
    found = {path.relative_to(directory).as_posix() for path in directory.rglob("*") if not path.is_dir()}
    return found - {MANIFEST}


def describe(path: Path) -> str:
    """Size and digest of a file."""
    try:
        with path.open("rb") as file:
            return f"{path.stat().st_size} bytes, sha256 {hashlib.file_digest(file, 'sha256').hexdigest()}"
    except OSError as error:
        return str(error.strerror)


def sealed(content: dict[str, Any]) -> str:
    """JSON of content and its own digest."""
    return json.dumps(content | {SEAL: digest(content)}, indent=1, allow_nan=False) + "\n"
