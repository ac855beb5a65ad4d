"""A trace of some steps of training: what ran on the device when, for TensorBoard or ui.perfetto.dev."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from jaxclf.errors import require


@dataclass
class Profiler:
    """Traces the calls of the train step that do steps `start` to `stop` (excluded), counted from 0."""

    folder: Path
    start: int
    stop: int
    tracing: bool = False

    def before(self, steps: range, state: Any) -> None:
        """To be called before `steps` are dispatched; begins with what is behind them finished."""
        if not self.tracing and steps.stop > self.start and steps.start < self.stop:
            jax.block_until_ready(state)
            jax.profiler.start_trace(self.folder)
            self.tracing = True

    def after(self, steps: range, state: Any) -> None:
        """To be called with the state that `steps` will have made; ends when the last of them is done."""
        if self.tracing and steps.stop >= self.stop:
            jax.block_until_ready(state)
            self.close()

    def close(self) -> None:
        """Write the trace, where one has begun."""
        if self.tracing:
            self.tracing = False
            jax.profiler.stop_trace()


def steps_to_profile(text: str, total_steps: int) -> tuple[int, int]:
    """The first and last of `START:STOP`, the latter excluded; raises UserError unless a run has such steps."""
    found = re.fullmatch(r"(\d+):(\d+)", text)
    require(found is not None, f"--profile {text}: expected START:STOP, such as 100:110")
    assert found
    start, stop = map(int, found.groups())
    require(start < stop <= total_steps, f"--profile {text}: expected START < STOP <= {total_steps:,}, the run's steps")
    return start, stop
