"""The log lines of training: fetched by a thread, one interval late, so that logging never stalls the device."""

from __future__ import annotations

import math
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

from jaxclf.errors import NonFiniteError
from jaxclf.training.callbacks import Callback, is_due
from jaxclf.training.state import StepSums, are_finite, summarize
from jaxclf.training.step_config import StepConfig
from jaxclf.training.writers import Record, select_scalars

if TYPE_CHECKING:
    from jaxclf.training.trainer import Trainer


class Interval(NamedTuple):
    """The steps since the last log line, once the device has done them."""

    step: int
    images: int
    """Number of images, without padding."""
    values: dict[str, Any]
    finished: float
    """When, in seconds of time.perf_counter."""
    data_wait: float
    """Seconds devices have waited for batches since the run began, at most."""


class IntervalLogger(Callback):
    """Records the metrics of each interval of `log_every` steps, and stops training that is not finite."""

    def __init__(self):
        self._fetcher = ThreadPoolExecutor(1)
        self._pending = deque[Future[Interval]]()
        self._in_epoch = False

    def on_epoch_begin(self, trainer: Trainer) -> None:
        """Start the clock, behind what the interval had taken when it was saved."""
        progress = trainer.progress
        self._pending.clear()
        self._in_epoch = True
        self._began = self._finished = time.perf_counter() - progress.interval_seconds
        self._seconds_before = progress.train_seconds - progress.interval_seconds
        self._data_wait = progress.data_wait_seconds

    def on_step_end(self, trainer: Trainer, steps: range) -> None:
        """End the interval where it is due, and record the one before."""
        if is_due(steps, trainer.config.log_every) or steps.stop == trainer.last_step_of_epoch:
            self._end_interval(trainer)
            trainer.state = trainer.state.replace(interval_stats=trainer.zero_sums())
        self._record_all_but(1, trainer)

    def on_checkpoint(self, trainer: Trainer) -> None:
        """Record everything, so that the checkpoint counts it, and check that it is worth saving."""
        if self._in_epoch:
            self._record_all_but(0, trainer)
            self._check_finite(trainer)
            now = time.perf_counter()
            trainer.progress.interval_seconds = now - self._finished
            trainer.progress.train_seconds = self._seconds_before + now - self._began

    def on_interrupt(self, trainer: Trainer) -> None:
        """Record everything before the run stops."""
        self.on_checkpoint(trainer)

    def on_steps_end(self, trainer: Trainer) -> None:
        """Record the last interval of the epoch."""
        self._record_all_but(0, trainer)
        self._check_finite(trainer)
        trainer.progress.interval_seconds = 0.0
        self._in_epoch = False

    def close(self) -> None:
        """Wait for what is being fetched."""
        self._fetcher.shutdown()

    def _end_interval(self, trainer: Trainer) -> None:
        sums, progress = trainer.state.interval_stats, trainer.progress
        self._pending.append(
            self._fetcher.submit(_fetch, trainer.step_config, progress.steps_done, sums, progress.data_wait_seconds)
        )

    def _record_all_but(self, kept: int, trainer: Trainer) -> None:
        """Record what has come; raise NonFiniteError after an interval whose loss is not a number."""
        while len(self._pending) > kept:
            interval = self._pending.popleft().result()
            values = select_scalars(interval.values) | {
                "learning_rate": float(trainer.learning_rates[interval.step - 1]),
                "images_per_second": interval.images / (interval.finished - self._finished),
                "data_wait_seconds": interval.data_wait - self._data_wait,
            }
            self._finished, self._data_wait = interval.finished, interval.data_wait
            trainer.progress.train_seconds = self._seconds_before + self._finished - self._began
            trainer.record(Record(interval.step, interval.step / trainer.steps_per_epoch, "train", "interval", values))
            if interval.images and not math.isfinite(values["loss"]):  # none are left if all updates were skipped
                norm = values.get("gradient_norm", math.nan)
                raise NonFiniteError(interval.step, values["loss"], norm, values["learning_rate"])

    def _check_finite(self, trainer: Trainer) -> None:
        """Raise NonFiniteError, with the interval so far recorded, unless all parameters are finite.

        The loss shows what a step did to the parameters only in the next step.
        """
        if jax.jit(are_finite)(trainer.state.params):
            return
        if trainer.state.interval_stats.images:
            self._end_interval(trainer)
            self._record_all_but(0, trainer)
        step = trainer.progress.steps_done
        raise NonFiniteError(step, math.nan, math.nan, float(trainer.learning_rates[step - 1]))


def _fetch(step_config: StepConfig, step: int, sums: StepSums, data_wait: float) -> Interval:
    """Wait for the device, and compute the values of an interval."""
    images = sums.images
    return Interval(step, images, summarize(step_config, sums), time.perf_counter(), data_wait)
