"""A run's numbers as lines of JSON."""

from __future__ import annotations

import json
from pathlib import Path

from jaxclf.io.files import finite, whole
from jaxclf.training.writers.record import Record, Shown


class Jsonl:
    """A line a record in `metrics.jsonl`; numbers and words alone. Lines behind the first `rows` are cut off first."""

    def __init__(self, path: Path, rows: int):
        self.path, self.rows = path, 0
        if path.exists():
            # Bytes: whatever stopped the run may have cut a line within a letter.
            lines = path.read_bytes().split(b"\n")[:-1][:rows]
            with whole(path) as partial:
                partial.write_bytes(b"".join(line + b"\n" for line in lines))
            self.rows = len(lines)

    def __call__(self, record: Record) -> None:
        """Append the record."""
        values = {name: value for name, value in record.values.items() if not isinstance(value, Shown)}
        if not values:
            return
        row = {
            "step": record.step,
            "epoch": record.epoch,
            "split": record.split,
            "period": record.period,
        } | values
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(finite(row), allow_nan=False) + "\n")
        self.rows += 1
