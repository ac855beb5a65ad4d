"""Hooks of the training loop, and the callbacks every run has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jaxclf.training.checkpoint import Checkpoints
from jaxclf.training.distributed import main_process_first
from jaxclf.training.state import restore_state
from jaxclf.training.writers import Record, RunInfo, Writer

if TYPE_CHECKING:
    from jaxclf.training.trainer import Trainer


class Callback:
    """Base class of callbacks. Every hook does nothing unless it is overridden.

    Hooks are called in the order of the callbacks. They may read and replace `trainer.state`, call `trainer.record`,
    and set `trainer.stop_training` (no further epoch) or `trainer.interrupted` (save, then raise `Interrupted`).
    """

    def on_train_begin(self, trainer: Trainer) -> None:
        """Called first, before anything is compiled."""

    def on_ready(self, trainer: Trainer) -> None:
        """Called when the step is compiled and the state is initialized or restored."""

    def on_epoch_begin(self, trainer: Trainer) -> None:
        """Called before the steps of an epoch, or before those that are left of one."""

    def on_step_begin(self, trainer: Trainer, steps: range) -> None:
        """Called before one execution of the compiled program, which does these steps."""

    def on_step_end(self, trainer: Trainer, steps: range) -> None:
        """Called after the dispatch of these steps; the device may still compute them."""

    def on_steps_end(self, trainer: Trainer) -> None:
        """Called after the last step of an epoch, before its evaluation."""

    def on_batch_evaluated(self, trainer: Trainer) -> None:
        """Called after each batch of an evaluation."""

    def on_epoch_end(self, trainer: Trainer) -> None:
        """Called when an epoch is evaluated and recorded."""

    def on_record(self, trainer: Trainer, record: Record) -> None:
        """Called with every record of the run."""

    def on_checkpoint(self, trainer: Trainer) -> None:
        """Called before a checkpoint is saved, so that pending work can be finished."""

    def on_interrupt(self, trainer: Trainer) -> None:
        """Called when the run is interrupted, before `Interrupted` is raised."""

    def on_rollback(self, trainer: Trainer) -> None:
        """Called when training is not finite and `non_finite` is "rollback"; `trainer.state` is the initial one."""

    def on_train_end(self, trainer: Trainer) -> None:
        """Called after the last epoch."""

    def close(self) -> None:
        """Called once at the end, also after an error."""


class EarlyStopping(Callback):
    """Stops training when validation has not improved for some epochs.

    The best epoch is part of the checkpoint, so a resumed run stops where it would have.
    """

    def __init__(self, patience: int):
        self.patience = patience

    def on_ready(self, trainer: Trainer) -> None:
        """Stop at once where the restored run had stopped."""
        progress = trainer.progress
        trainer.stop_training |= self.patience <= progress.epochs_done - progress.best_epoch

    def on_epoch_end(self, trainer: Trainer) -> None:
        """Compare the epoch with the best one."""
        self.on_ready(trainer)


class Checkpointer(Callback):
    """Saves checkpoints: after each epoch, every so many steps, and when the run is interrupted.

    One more is saved before the first evaluation of a process, which may need more memory than there is.
    """

    def __init__(self, checkpoints: Checkpoints, every: int):
        self.checkpoints, self.every = checkpoints, every
        self._saved: tuple[int, int] | None = None  # steps and epochs done
        self._evaluated = False

    def on_step_end(self, trainer: Trainer, steps: range) -> None:
        """Save within an epoch."""
        if is_due(steps, self.every) and steps.stop < trainer.last_step_of_epoch:
            self._save(trainer)

    def on_steps_end(self, trainer: Trainer) -> None:
        """Save before the first evaluation."""
        if not self._evaluated:
            self._save(trainer)
        self._evaluated = True

    def on_epoch_end(self, trainer: Trainer) -> None:
        """Save at the end of an epoch."""
        self._save(trainer)

    def on_interrupt(self, trainer: Trainer) -> None:
        """Save before the run stops."""
        self._save(trainer)

    def on_rollback(self, trainer: Trainer) -> None:
        """Restore the newest checkpoint."""
        with main_process_first():  # the main process gives checkpoints their names
            self.checkpoints.wait()
            saved = self.checkpoints.find_newest()
        if saved is not None:
            trainer.state = restore_state(self.checkpoints, saved, trainer.state)
        self._saved = None

    def _save(self, trainer: Trainer) -> None:
        done = (trainer.progress.steps_done, trainer.progress.epochs_done)
        if self._saved != done:
            trainer.notify("on_checkpoint")
            self.checkpoints.save(trainer.progress.steps_done, trainer.state, trainer.metrics, trainer.notes)
            self._saved = done


def is_due(steps: range, every: int) -> bool:
    """Return whether one of some steps is an `every`-th; 0 is never."""
    return every > 0 and steps.stop // every > steps.start // every


class RecordWriters(Callback):
    """Passes every record to some writers."""

    def __init__(self, writers: Sequence[Writer], run: RunInfo):
        self.writers, self.run = writers, run
        self._opened: list[Writer] = []

    def on_ready(self, trainer: Trainer) -> None:
        """Open the writers at the step the run resumes from."""
        step = trainer.resumed.step if trainer.resumed else 0
        for writer in self.writers:
            writer.open(self.run, step)
            self._opened.append(writer)

    def on_record(self, trainer: Trainer, record: Record) -> None:
        """Write a record."""
        for writer in self.writers:
            writer(record)

    def close(self) -> None:
        """Close the writers that were opened."""
        for writer in self._opened:
            writer.close()
        self._opened.clear()
