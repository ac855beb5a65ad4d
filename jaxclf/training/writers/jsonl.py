"""Metrics as lines of JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass

from jaxclf.io.files import atomic_write, replace_non_finite
from jaxclf.training.writers.base import RunInfo
from jaxclf.training.writers.record import Record


@dataclass
class Jsonl:
    """Writes `metrics.jsonl` in the run directory: a line for each record that has numbers."""

    def open(self, run: RunInfo, step: int) -> None:
        """Cut the lines that the run has written after its checkpoint."""
        self._path = run.directory / "metrics.jsonl"
        if self._path.exists():
            # Bytes: whatever stopped the run may have cut a line within a character.
            lines = self._path.read_bytes().split(b"\n")[:-1][: len(run.rows)]
            with atomic_write(self._path) as partial:
                partial.write_bytes(b"".join(line + b"\n" for line in lines))

    def __call__(self, record: Record) -> None:
        """Append the record. The file is opened anew: another process may read it, or have moved the run."""
        row = record.to_row()
        if row is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(replace_non_finite(row), allow_nan=False) + "\n")

    def close(self) -> None:
        """Nothing is pending."""
