"""The summary of a finished run."""

from __future__ import annotations

import math
import time
from typing import Any

from jaxclf.training.checkpoint import Saved
from jaxclf.training.trainer import Trainer


def build_summary(
    trainer: Trainer, parameters: int, test: dict[str, float] | None, best: Saved | None, began: float
) -> dict[str, Any]:
    """Return what `summary.json` holds.

    Args:
        trainer: The trainer, after `fit`.
        parameters: Number of parameters of the model.
        test: Metrics of the test set, where there is one.
        best: The best checkpoint by validation, where there is one.
        began: When the process began the run, in seconds of time.perf_counter.
    """
    progress = trainer.progress
    return {
        "parameters": parameters,
        "epochs": progress.epochs_done,
        "steps": progress.steps_done,
        "batch_size": trainer.config.batch_size,
        **{name: values for name, values in progress.latest.items() if name != "test"},
        "test": test,
        "images_per_second": trainer.images_per_epoch * progress.epochs_done / (progress.train_seconds or math.inf),
        "images_left_out": progress.images_left_out,
        "files_left_out": len(trainer.splits.skipped),
        "train_seconds": progress.train_seconds,
        "data_wait_seconds": progress.data_wait_seconds,
        "compile_seconds": trainer.compile_seconds,
        "wall_seconds": time.perf_counter() - began,
        "best": {"step": best.step, **best.metrics} if best else None,
    }
