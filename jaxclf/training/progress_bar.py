"""A progress bar in a terminal or a notebook, elsewhere a line for each interval; and a line for each epoch."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from jaxclf.io.formatting import format_value
from jaxclf.training.callbacks import Callback
from jaxclf.training.writers import Record

if TYPE_CHECKING:
    from jaxclf.training.trainer import Trainer

WIDE = ("gradient_norm", "learning_rate", "data_wait_seconds")  # values the bar has no room for


class ProgressBar(Callback):
    """Shows how far training has come, on standard output."""

    def __init__(self):
        console = Console(file=sys.stdout, highlight=False, markup=False, emoji=False, soft_wrap=True)
        # In a notebook rich needs ipywidgets to update a bar; without them, a line is printed for each epoch.
        self._in_notebook = console.is_jupyter
        live = find_spec("ipywidgets") is not None if self._in_notebook else console.is_terminal
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[values]}", markup=False),
        )
        self._print = print if self._in_notebook else console.print  # rich makes every line an output of its own
        self._bar = Progress(*columns, console=console, disable=not live)

    def on_train_begin(self, trainer: Trainer) -> None:
        """Show the bar, at the step the run resumes from."""
        step = trainer.resumed.step if trainer.resumed else 0
        if step:
            self._print(f"resuming from step {step:,}")
        if trainer.splits.validation is None and trainer.splits.test is not None:
            self._print("no validation split: curves show test, and no best checkpoint is chosen")
        self._task = self._bar.add_task("", total=trainer.total_steps, completed=step, values="")
        self._bar.start()

    def on_step_end(self, trainer: Trainer, steps: range) -> None:
        """Move the bar."""
        epoch = f"epoch {trainer.progress.epochs_done + 1}/{trainer.config.epochs}"
        self._bar.update(self._task, completed=steps.stop, description=epoch)

    def on_record(self, trainer: Trainer, record: Record) -> None:
        """Show a record: beside the bar, or as a line."""
        values = {name: value for name, value in record.values.items() if isinstance(value, float | int | str)}
        line = "  ".join(format_value(name, value) for name, value in values.items())
        if record.period == "epoch":
            if values:
                self._print(f"epoch {record.epoch:g}/{trainer.config.epochs}  {record.split:<10}  {line}")
        elif self._bar.disable:
            if not self._in_notebook:
                self._print(f"step {record.step:,}/{trainer.total_steps:,}  epoch {record.epoch:.2f}  {line}")
        else:
            line = "  ".join(format_value(name, value) for name, value in values.items() if name not in WIDE)
            self._bar.update(self._task, values=line)

    def on_train_end(self, trainer: Trainer) -> None:
        """Remove the bar."""
        self._bar.stop()
        if trainer.stopped_early:
            best, patience = trainer.progress.best_epoch, trainer.config.patience
            out_of_patience = 0 < patience <= trainer.progress.epochs_done - best
            reason = f"validation has not improved since epoch {best}" if out_of_patience else "as a callback requested"
            self._print(f"stopped early: {reason}")

    def close(self) -> None:
        """Remove the bar after an error."""
        self._bar.stop()
