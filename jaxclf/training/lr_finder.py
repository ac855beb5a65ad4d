"""The learning-rate range test: one short run in which the rate grows until the loss diverges.

L. Smith, "Cyclical Learning Rates for Training Neural Networks" (2017).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import optax
from jaxtyping import Float

from jaxclf.config import Config
from jaxclf.config_io import component_fields
from jaxclf.errors import require
from jaxclf.training.devices import Devices
from jaxclf.training.interval_log import NonFiniteError
from jaxclf.training.pipeline import steps_per_epoch
from jaxclf.training.trainer import Trainer
from jaxclf.training.writers import Record
from jaxclf.types import Splits

LOW, HIGH = 1e-6, 10.0  # rates that are tried where none are named
STEPS = 400  # from the lowest rate to the highest
WIDTH = 6.0  # steps, the standard deviation of the weights the loss is smoothed by
DIVERGED = 4.0  # times the lowest smoothed loss


@dataclass(frozen=True)
class Rising:
    """A schedule for a range test: from `low` to `high` in equal factors a step."""

    low: float
    high: float

    def build(self, learning_rate: float, total_steps: int) -> optax.Schedule:
        """The learning rate as a function of the step; it knows its own highest and number of steps."""
        return lambda step: self.low * (self.high / self.low) ** (step / (STEPS - 1))


class Curve(NamedTuple):
    """The loss of each step against its learning rate."""

    rates: Float[np.ndarray, " steps"]
    losses: Float[np.ndarray, " steps"]  # of the step's batch, before its update
    smoothed: Float[np.ndarray, " steps"]
    diverged: bool  # at the last rate; if not, that is the highest of all


class Suggestion(NamedTuple):
    """Two learning rates to search between."""

    steepest: float  # where the smoothed loss falls fastest
    highest: float  # a tenth of where it diverges; where it does not, that of the lowest loss


class RangeEnd(Exception):  # noqa: N818 - it is no error
    """The loss has diverged, or every rate has been tried."""


def range_test(config: Config, splits: Splits, devices: Devices, low: float = LOW, high: float = HIGH) -> Curve:
    """Train from the initial weights while the rate rises. Training images alone are looked at."""
    points: list[tuple[float, float]] = []

    def watch(record: Record) -> None:
        rate, loss = (record.values.get(name) for name in ("learning_rate", "loss"))
        if isinstance(rate, float) and isinstance(loss, float) and np.isfinite(loss):
            points.append((rate, loss))
            if len(points) == STEPS or has_diverged(smooth(np.array(points)[:, 1])):
                raise RangeEnd

    # The trainer is given no other images, so it can evaluate none.
    trainer = Trainer(rising(config, splits, low, high), Splits(splits.train, None, None), devices, write=watch)
    finite = True
    try:
        trainer.fit()
    except RangeEnd:
        pass
    except NonFiniteError:
        finite = False
    require(len(points) > 1, f"the loss is not finite at a learning rate of {low:g}; begin at a lower one")
    rates, losses = np.array(points).T
    smoothed = smooth(losses)
    return Curve(rates, losses, smoothed, not finite or has_diverged(smoothed))


def rising(config: Config, splits: Splits, low: float, high: float) -> Config:
    """The config of a range test: every step logged, and no other end than that of the test."""
    require(0 < low < high, f"--lr-range {low:g} {high:g}: expected two learning rates, the lower one first")
    optimizer: Any = config.optimizer
    require(
        {"learning_rate", "schedule"} <= component_fields(optimizer).keys(),
        f"a range test sets the learning_rate and the schedule of an optimizer, and {optimizer!r} has not both",
    )
    epochs = -(-STEPS // steps_per_epoch(len(splits.train), config.batch_size, config.remainder))
    optimizer = replace(optimizer, learning_rate=high, schedule=Rising(low, high))
    every_step = {"log_every": 1, "steps_per_execution": 1}
    return replace(config, optimizer=optimizer, epochs=epochs, patience=0, evaluate_train=False, **every_step)


def smooth(losses: Float[np.ndarray, " steps"]) -> Float[np.ndarray, " steps"]:
    """Means of the losses around each step, weighted by a Gaussian; at the ends, of those that are there."""
    steps = np.arange(len(losses))
    weights = np.exp(-0.5 * ((steps[:, None] - steps) / WIDTH) ** 2)
    return weights @ losses / weights.sum(axis=1)


def has_diverged(smoothed: Float[np.ndarray, " steps"]) -> bool:
    """Whether the loss is several times what it was at its lowest."""
    return bool(smoothed[-1] > DIVERGED * smoothed.min())


def suggest(curve: Curve) -> Suggestion:
    """Where to search: from the steepest descent to a tenth of where the loss diverges."""
    lowest = int(np.argmin(curve.smoothed))
    require(lowest > 0, f"the loss falls at no learning rate from {curve.rates[0]:g}; begin at a lower one")
    slopes = np.gradient(curve.smoothed, np.log(curve.rates))
    highest = curve.rates[-1] / 10 if curve.diverged else curve.rates[lowest]
    return Suggestion(float(curve.rates[np.argmin(slopes[: lowest + 1])]), float(highest))
