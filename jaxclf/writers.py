"""Where a run's numbers go. A writer is called with one `Record`; adding one changes nothing else."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console as RichConsole
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from jaxclf.files import finite, whole


@dataclass(frozen=True)
class Image:
    """A picture among the values of a record: uint8 [h, w, c]."""

    pixels: np.ndarray


@dataclass(frozen=True)
class Record:
    """What is known of one split at one step."""

    step: int  # optimiser updates done
    epoch: float | int  # passes over the training images done
    split: str  # train, train_full (evaluated, not the running mean), validation or test
    period: Literal["interval", "epoch"]  # what the values are the mean of
    values: Mapping[str, float | int | str | Image]


Writer = Callable[[Record], None]


def scalars(values: Mapping[str, Any]) -> dict[str, float]:
    """The values that are numbers. A metric may give arrays too, which have no place in a line."""
    return {name: float(value) for name, value in values.items() if np.ndim(value) == 0}


class Jsonl:
    """A line a record in `metrics.jsonl`; pictures are left out. Lines behind the first `rows` are cut off first."""

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
        values = {name: value for name, value in record.values.items() if not isinstance(value, Image)}
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


class TensorBoard:
    """Event files, a directory a split. What was written after `step` is superseded."""

    def __init__(self, directory: Path, step: int):
        self.directory, self.step = directory, step
        self._files: dict[str, Any] = {}

    def __call__(self, record: Record) -> None:
        """Write scalars and pictures. Running means of an epoch have tags of their own."""
        file = self._open(record.split)
        running = record.split == "train" and record.period == "epoch"
        for name, value in record.values.items():
            if isinstance(value, Image):
                file.add_image(name, value.pixels, record.step, dataformats="HWC")
            elif not isinstance(value, str) and finite(value) is not None:
                file.add_scalar(f"epoch_{name}" if running else name, value, record.step)

    def _open(self, split: str) -> Any:
        if split not in self._files:
            from tensorboardX import SummaryWriter

            # By itself the name has the second alone, and a run that goes on within it would write over its curves.
            self._files[split] = SummaryWriter(
                str(self.directory / split), purge_step=self.step + 1, filename_suffix=f".{time.time_ns()}"
            )
        return self._files[split]

    def close(self) -> None:
        """Write out what is buffered."""
        for file in self._files.values():
            file.close()


class Console:
    """A progress bar on a terminal, elsewhere a line an interval; and a line an epoch on both."""

    def __init__(self, epochs: int, total_steps: int, step: int):
        self.epochs, self.total_steps = epochs, total_steps
        console = RichConsole(file=sys.stdout, highlight=False, markup=False, emoji=False, soft_wrap=True)
        self._print = console.print
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[values]}", markup=False),
        )
        self._bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._bar.add_task("", total=total_steps, completed=step, values="")

    def __enter__(self) -> Console:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def step(self, step: int, epoch: int) -> None:
        """Move the bar to a step."""
        self._bar.update(self._task, completed=step, description=f"epoch {epoch + 1}/{self.epochs}")

    def __call__(self, record: Record) -> None:
        """Show the record; the bar has room for the loss, the metrics and the speed."""
        values = {name: value for name, value in record.values.items() if isinstance(value, float | int | str)}
        line = "  ".join(show(name, value) for name, value in values.items())
        if record.period == "epoch":
            if values:
                self._print(f"epoch {record.epoch:g}/{self.epochs}  {record.split:<10}  {line}")
        elif self._bar.disable:
            self._print(f"step {record.step:,}/{self.total_steps:,}  epoch {record.epoch:.2f}  {line}")
        else:
            wide = ("gradient_norm", "learning_rate", "data_wait_seconds")
            line = "  ".join(show(name, value) for name, value in values.items() if name not in wide)
            self._bar.update(self._task, values=line)


def show(name: str, value: float | int | str) -> str:
    """A value for people: shares as percent, speeds as whole numbers, waits in seconds."""
    if isinstance(value, str):
        return f"{name} {value}"
    if name.endswith("accuracy"):
        return f"{name} {value:.2%}"
    if isinstance(value, int):
        return f"{name} {value:,}"
    if name == "images_per_second":
        return f"{value:,.0f} images/s"
    if name == "data_wait_seconds":
        return f"data wait {value:.2f} s"
    return f"{name} {value:.4g}"
