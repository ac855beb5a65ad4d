"""A run's numbers for the one who waits."""

from __future__ import annotations

import sys

from rich.console import Console as RichConsole
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from jaxclf.training.writers.record import Record


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
