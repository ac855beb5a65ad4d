"""The protocol of writers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from jaxclf.training.writers.record import Record


@dataclass(frozen=True)
class RunInfo:
    """What a writer knows of the run it writes."""

    directory: Path
    """The run directory."""
    config: Mapping[str, Any]
    """The fields of the config by dotted names, as JSON data."""
    rows: Sequence[Mapping[str, Any]] = ()
    """The rows of metrics.jsonl before the checkpoint that the run resumes from."""

    @property
    def name(self) -> str:
        """The name of the run: that of its directory."""
        return self.directory.resolve().name


@runtime_checkable
class Writer(Protocol):
    """Writes the records of a run somewhere. A writer is a dataclass; its fields are options.

    A run that resumes opens its writers again: whatever was written after `step`, or after `run.rows`, is
    superseded. A writer that cannot overwrite starts anew and writes `run.rows` again.
    """

    def open(self, run: RunInfo, step: int) -> None:
        """Start writing a run that resumes from `step`, or starts at 0."""
        ...

    def __call__(self, record: Record) -> None:
        """Write a record."""
        ...

    def close(self) -> None:
        """Write what is pending, and release files."""
        ...
