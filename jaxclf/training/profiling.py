"""A trace of some training steps: what ran on the device and when, for TensorBoard or ui.perfetto.dev."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import jax

from jaxclf.errors import require
from jaxclf.training.callbacks import Callback

if TYPE_CHECKING:
    from jaxclf.training.trainer import Trainer


class Profiler(Callback):
    """Traces the executions that do steps `start` to `stop` (excluded), counted from 0."""

    def __init__(self, folder: Path, start: int, stop: int):
        self.folder, self.start, self.stop = folder, start, stop
        self._tracing = False

    def on_ready(self, trainer: Trainer) -> None:
        """Raise UserError if the steps are past."""
        step = trainer.progress.steps_done
        require(step <= self.start, f"--profile: the run resumes at step {step:,}; profile later steps")

    def on_step_begin(self, trainer: Trainer, steps: range) -> None:
        """Start with all earlier steps finished."""
        if not self._tracing and steps.stop > self.start and steps.start < self.stop:
            jax.block_until_ready(trainer.state)
            jax.profiler.start_trace(self.folder)
            self._tracing = True

    def on_step_end(self, trainer: Trainer, steps: range) -> None:
        """Stop when the last of the steps is done."""
        if self._tracing and steps.stop >= self.stop:
            jax.block_until_ready(trainer.state)
            self.close()

    def close(self) -> None:
        """Write the trace, if one has begun."""
        if self._tracing:
            self._tracing = False
            jax.profiler.stop_trace()


def parse_steps(text: str, total_steps: int) -> tuple[int, int]:
    """Return the first step and the last, excluded, of `START:STOP`.

    Raises:
        UserError: Unless the run has such steps.
    """
    found = re.fullmatch(r"(\d+):(\d+)", text)
    require(found is not None, f"--profile {text}: expected START:STOP, such as 100:110")
    assert found
    start, stop = map(int, found.groups())
    require(start < stop <= total_steps, f"--profile {text}: expected START < STOP <= {total_steps:,}, the run's steps")
    return start, stop
