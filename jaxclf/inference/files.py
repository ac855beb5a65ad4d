"""Search for the image files that command-line arguments name: files, folders, patterns, or `-` for standard input."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jaxclf.datasets.folders import find_files, to_printable
from jaxclf.datasets.pillow import SUFFIXES

STANDARD_INPUT = "-"


@dataclass
class FoundImages:
    """The result of a search for image files."""

    files: list[str] = field(default_factory=list)
    """The files, in the order of the arguments."""
    missing: list[str] = field(default_factory=list)
    """A line for each argument that matches no image."""
    left_out: int = 0
    """Number of files in folders that are not images by their suffix."""

    def add(self, argument: str) -> None:
        """Add the files that an argument names. A file that is named itself is added whatever its suffix."""
        try:
            # `Path.glob` cannot match absolute patterns.
            matches = [argument] if Path(argument).exists() else sorted(glob.glob(argument, recursive=True))  # noqa: PTH207
            files = [file for match in matches for file in self._list_images(match)]
        except OSError as error:
            self.missing.append(f"{to_printable(argument)}: {error.strerror}")
            return
        self.files.extend(dict.fromkeys(files))  # `**` matches folders and also the files in them
        if not files:
            reason = "no images in it" if matches else "no file or folder has this name or matches it"
            self.missing.append(f"{to_printable(argument)}: {reason}")

    def _list_images(self, path: str) -> list[str]:
        if not Path(path).is_dir():
            return [path]
        root = Path(path).resolve()  # `find_files` needs the parent's name, which `.` does not have
        files = sorted(find_files(root))
        images = [file for file in files if file.suffix.lower() in SUFFIXES or file.is_dir()]
        self.left_out += len(files) - len(images)
        return [str(Path(path) / file.relative_to(root)) for file in images]


def find_images(arguments: Sequence[str]) -> FoundImages:
    """Return the image files that command-line arguments name. In folders, hidden and system files are ignored."""
    found = FoundImages()
    for argument in arguments:
        for each in _read_list() if argument == STANDARD_INPUT else (argument,):
            found.add(each)
    return found


def _read_list() -> Iterator[str]:
    """Yield the arguments on standard input, one per line, which need not be valid text."""
    return (os.fsdecode(line) for line in sys.stdin.buffer.read().splitlines() if line)
