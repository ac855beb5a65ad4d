"""The picture files that words of a command line name: files, folders, patterns, or `-` for a list of such words."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jaxclf.datasets.scan import SUFFIXES, files_under, printable

LIST = "-"


@dataclass
class Named:
    """What was found."""

    files: list[str] = field(default_factory=list)
    """In the order of the words, and as these have them."""
    missing: list[str] = field(default_factory=list)
    """A line for each word that leads to no picture."""
    left_out: int = 0
    """Files in folders whose names do not end as a picture's."""

    def add(self, word: str) -> None:
        """Find what one word names. A file that is named itself is taken whatever its name."""
        try:
            matches = [word] if Path(word).exists() else sorted(glob.glob(word, recursive=True))  # noqa: PTH207 - of any root
            files = [file for match in matches for file in self._within(match)]
        except OSError as error:
            self.missing.append(f"{printable(word)}: {error.strerror}")
            return
        self.files.extend(dict.fromkeys(files))  # `**` matches folders and what is in them
        if not files:
            reason = "no pictures are in it" if matches else "no file or folder has this name or matches it"
            self.missing.append(f"{printable(word)}: {reason}")

    def _within(self, word: str) -> list[str]:
        if not Path(word).is_dir():
            return [word]
        root = Path(word).resolve()  # what is above `.` cannot be told from its name
        files = sorted(files_under(root))
        pictures = [path for path in files if path.suffix.lower() in SUFFIXES or path.is_dir()]
        self.left_out += len(files) - len(pictures)
        return [str(Path(word) / path.relative_to(root)) for path in pictures]


def find_pictures(words: Sequence[str]) -> Named:
    """The picture files that words name; hidden files and litter in folders are passed over."""
    named = Named()
    for word in words:
        for each in listed() if word == LIST else (word,):
            named.add(each)
    return named


def listed() -> Iterator[str]:
    """The words on standard input, one a line; their bytes need not be text."""
    return (os.fsdecode(line) for line in sys.stdin.buffer.read().splitlines() if line)
