"""How far a run has come. Checkpoints note it beside the state, so that a resumed run is the same run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from jaxclf.training.checkpoint import score


@dataclass
class Progress:
    """Counts, seconds and metrics of a run since its beginning, whichever processes trained it."""

    steps_done: int = 0
    """Optimizer updates."""
    epochs_done: int = 0
    """Epochs trained and evaluated."""
    train_seconds: float = 0.0
    """Duration of the steps, without evaluation and checkpoints."""
    data_wait_seconds: float = 0.0
    """The part of it in which the loop waited for batches while the device was idle, at most."""
    interval_seconds: float = 0.0
    """Duration since the last log line, when the last checkpoint was saved."""
    images_left_out: int = 0
    """Images of skipped, non-finite updates, over all epochs."""
    latest: dict[str, dict[str, float]] = field(default_factory=dict)
    """Metrics of the last epoch, by split."""
    best_score: float | None = None
    """Best validation score; None before the first evaluation."""
    best_epoch: int = 0
    """Epochs done when it was reached."""

    @classmethod
    def from_notes(cls, notes: Mapping[str, Any]) -> Progress:
        """Return the progress that a checkpoint notes."""
        progress = cls(**{each.name: notes[each.name] for each in fields(cls)})
        if progress.best_score is None and progress.best_epoch:
            progress.best_score = -math.inf  # which is None in a manifest
        return progress

    def end_epoch(self, evaluated: bool) -> None:
        """Count an epoch and, if it was evaluated on validation images, keep the best one, the first of equals."""
        self.epochs_done += 1
        if not evaluated:
            return
        reached = score(self.latest["validation"])
        if self.best_score is None or reached > self.best_score:
            self.best_score, self.best_epoch = reached, self.epochs_done
