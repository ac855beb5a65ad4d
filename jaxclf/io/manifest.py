"""Manifest of a directory: size and SHA-256 of each file, so that damaged files are found before they are used."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from jaxclf.errors import UserError
from jaxclf.io.files import Json, hash_json, replace_non_finite, sync, write_text

MANIFEST = "manifest.json"
SEAL = "sha256"  # of the manifest without this field


class DamagedError(UserError):
    """A directory does not match its manifest; `items` lists the files."""


def write_manifest(directory: Path, content: dict[str, Json]) -> None:
    """Write the manifest of all files in a directory, with additional content; flush all of them to disk."""
    for name in _list_files(directory):
        sync(directory / name)
    files = {name: _describe_file(directory / name) for name in sorted(_list_files(directory))}
    write_text(directory / MANIFEST, _format_manifest(replace_non_finite(content) | {"files": files}))


def read_manifest(directory: Path) -> dict[str, Json]:
    """Return the content of a manifest, with the files as `files`; raise DamagedError if it is not as written."""
    try:
        text = (directory / MANIFEST).read_text(encoding="utf-8")
        content = json.loads(text)
        sealed = content.pop(SEAL, None) is not None
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedError(f"{directory / MANIFEST} is damaged", [f"{MANIFEST}: {error}"]) from error
    if not sealed or _format_manifest(content) != text:
        raise DamagedError(f"{directory / MANIFEST} is damaged", [f"{MANIFEST}: not as it was written"])
    return content


def check_files(directory: Path, content: dict[str, Json]) -> None:
    """Raise DamagedError unless a directory holds exactly the files of a manifest, each with its size and digest."""
    files, found = content["files"], _list_files(directory)
    problems = [f"{name}: missing" for name in files.keys() - found]
    problems += [f"{name}: not in the manifest" for name in found - files.keys()]
    for name in files.keys() & found:
        if (description := _describe_file(directory / name)) != files[name]:
            problems.append(f"{name}: {description} where {files[name]} was written")
    if problems:
        raise DamagedError(f"{directory} is damaged", sorted(problems))


def _list_files(directory: Path) -> set[str]:
    """Return the files in a directory, as relative paths, without the manifest."""
    found = {path.relative_to(directory).as_posix() for path in directory.rglob("*") if not path.is_dir()}
    return found - {MANIFEST}


def _describe_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return f"{path.stat().st_size} bytes, sha256 {hashlib.file_digest(file, 'sha256').hexdigest()}"
    except OSError as error:
        return str(error.strerror)


def _format_manifest(content: dict[str, Json]) -> str:
    """Return content and its own digest as JSON."""
    return json.dumps(content | {SEAL: hash_json(content)}, indent=1, allow_nan=False) + "\n"
