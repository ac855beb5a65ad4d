"""How far a run has come: what a checkpoint notes beside the state, so that a resumed run is the same run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from jaxclf.training.checkpoint import score


@dataclass
class Progress:
    """Counts, seconds and results of a run since its beginning, whatever resumed it."""

    steps_done: int = 0
    """Optimiser updates."""
    epochs_done: int = 0
    """Trained and evaluated."""
    train_seconds: float = 0.0
    """Of steps alone."""
    data_wait_seconds: float = 0.0
    """Of those, how long the loop waited for batches."""
    interval_seconds: float = 0.0
    """Since the last log line, when the last checkpoint was saved."""
    images_left_out: int = 0
    """Over all epochs, because numbers were not finite."""
    latest: dict[str, dict[str, float]] = field(default_factory=dict)
    """What was measured in the last epoch, by split."""
    best_score: float | None = None
    """Of validation; None where it was never looked at."""
    best_epoch: int = 0
    """Epochs done when it was reached."""

    @classmethod
    def noted(cls, notes: Mapping[str, Any]) -> Progress:
        """That of a checkpoint's notes."""
        return cls(**{each.name: notes[each.name] for each in fields(cls)})

    def end_epoch(self, evaluated: bool) -> None:
        """Count an epoch and, where it was evaluated on validation images, keep the best; equal is not better."""
        self.epochs_done += 1
        if not evaluated:
            return
        reached = score(self.latest["validation"])
        if self.best_score is None or reached > self.best_score:
            self.best_score, self.best_epoch = reached, self.epochs_done
