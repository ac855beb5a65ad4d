"""The log lines of training: fetched aside and written one interval late, so that logging never stalls the device."""

from __future__ import annotations

import math
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxclf.errors import NonFiniteError
from jaxclf.training.step import Recipe, summarize
from jaxclf.training.writers import Record, Writer, scalars


class Interval(NamedTuple):
    """The steps since the last log line, once the device has done them."""

    step: int
    images: int  # padding apart
    values: dict[str, Any]
    finished: float  # seconds, of time.perf_counter
    data_wait: float  # seconds devices have waited for batches since the run began, at most


@dataclass
class IntervalLog:
    """Writes a record an interval, in order."""

    recipe: Recipe
    steps_per_epoch: int
    learning_rates: Float[np.ndarray, " steps"]
    write: Writer
    began: float  # seconds, of time.perf_counter
    data_wait: float  # seconds, when it began

    def __post_init__(self):
        self.finished = self.began  # the last interval written
        self._pending = deque[Future[Interval]]()
        self._fetcher = ThreadPoolExecutor(1)

    def add(self, step: int, stats: Any, data_wait: float) -> None:
        """The stats of an interval that ends with `step`, which the device need not have done."""
        self._pending.append(self._fetcher.submit(self._fetch, step, stats, data_wait))

    def _fetch(self, step: int, stats: Any, data_wait: float) -> Interval:
        """The values of an interval, when the device has them."""
        images = int(stats["loss"]["count"])
        return Interval(step, images, summarize(self.recipe, stats), time.perf_counter(), data_wait)

    def write_all_but(self, kept: int) -> None:
        """Write what has come; raises NonFiniteError behind an interval whose loss is not a number."""
        while len(self._pending) > kept:
            self._write(self._pending.popleft().result())

    def _write(self, interval: Interval) -> None:
        values = scalars(interval.values) | {
            "learning_rate": float(self.learning_rates[interval.step - 1]),
            "images_per_second": interval.images / (interval.finished - self.finished),
            "data_wait_seconds": interval.data_wait - self.data_wait,
        }
        self.finished, self.data_wait = interval.finished, interval.data_wait
        self.write(Record(interval.step, interval.step / self.steps_per_epoch, "train", "interval", values))
        if not math.isfinite(values["loss"]):
            norm = values.get("gradient_norm", math.nan)
            raise NonFiniteError(interval.step, values["loss"], norm, values["learning_rate"])

    def close(self) -> None:
        """Wait for what is being fetched."""
        self._fetcher.shutdown()
