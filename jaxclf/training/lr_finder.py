"""The learning-rate range test: a short run in which the learning rate grows until the loss diverges.

L. Smith, "Cyclical Learning Rates for Training Neural Networks" (2017).
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import optax
from jaxtyping import Float

from jaxclf.config import Config
from jaxclf.config_io import get_component_fields
from jaxclf.errors import NonFiniteError, require
from jaxclf.training.callbacks import Callback
from jaxclf.training.devices import Devices
from jaxclf.training.pipeline import count_steps_per_epoch
from jaxclf.training.trainer import Trainer
from jaxclf.training.writers import Record
from jaxclf.types import Splits, Variables

LOW, HIGH = 1e-6, 10.0  # default range of learning rates
STEPS = 400  # from the lowest rate to the highest
WIDTH = 6.0  # standard deviation of the Gaussian that smooths the loss, in steps
DIVERGED = 4.0  # the smoothed loss has diverged at this multiple of its minimum


@dataclass(frozen=True)
class ExponentialIncrease:
    """Schedule of a range test: the learning rate grows from `low` to `high` by the same factor at each step."""

    low: float
    high: float

    def build(self, learning_rate: float, total_steps: int, epochs: int = 1) -> optax.Schedule:
        """Return the learning rate as a function of the step; the arguments are ignored."""
        return lambda step: self.low * (self.high / self.low) ** (step / (STEPS - 1))


class RangeTestCurve(NamedTuple):
    """The loss at each learning rate of a range test."""

    rates: Float[np.ndarray, " steps"]
    losses: Float[np.ndarray, " steps"]  # of the batch of each step, before its update
    smoothed: Float[np.ndarray, " steps"]
    diverged: bool  # at the last rate; if False, that is the highest rate of the range


class Suggestion(NamedTuple):
    """Two learning rates to search between."""

    steepest: float  # where the smoothed loss falls fastest
    highest: float  # a tenth of the rate at which the loss diverges, or else the rate of the lowest loss


class RangeTestEnd(Exception):  # noqa: N818 - it is not an error
    """The loss has diverged, or every rate has been tried."""


class _Sweep(Callback):
    """Collects the loss at each learning rate and ends training when it diverges."""

    def __init__(self):
        self.points: list[tuple[float, float]] = []

    def on_record(self, trainer: Trainer, record: Record) -> None:
        """Add the learning rate and the loss of a step."""
        rate, loss = (record.values.get(name) for name in ("learning_rate", "loss"))
        if isinstance(rate, float) and isinstance(loss, float) and np.isfinite(loss):
            self.points.append((rate, loss))
            if len(self.points) == STEPS or has_diverged(smooth(np.array(self.points)[:, 1])):
                raise RangeTestEnd


def run_range_test(
    config: Config,
    splits: Splits,
    devices: Devices,
    low: float = LOW,
    high: float = HIGH,
    init: Variables | None = None,
) -> RangeTestCurve:
    """Train from the initial weights with a growing learning rate until the loss diverges.

    Args:
        config: The config to test; its optimizer needs the fields `learning_rate` and `schedule`.
        splits: The dataset; only its training images are used.
        devices: Devices to train on.
        low: First learning rate.
        high: Learning rate of the last of 400 steps, if the loss does not diverge before.
        init: Variables to start from instead of the initializers of the model.

    Returns:
        The loss at each learning rate, up to the divergence.

    Raises:
        UserError: If the optimizer lacks these fields, or the loss is not finite at the first learning rate.
    """
    sweep = _Sweep()
    train_only = Splits(splits.train, None, None)  # so that the trainer evaluates nothing
    config = make_test_config(config, splits, low, high)
    trainer = Trainer(config, train_only, devices, callbacks=[sweep], init=init)
    finite = True
    try:
        with closing(trainer):
            trainer.fit()
    except RangeTestEnd:
        pass
    except NonFiniteError:
        finite = False
    require(len(sweep.points) > 1, f"the loss is not finite at a learning rate of {low:g}; start at a lower one")
    rates, losses = np.array(sweep.points).T
    smoothed = smooth(losses)
    return RangeTestCurve(rates, losses, smoothed, not finite or has_diverged(smoothed))


def make_test_config(config: Config, splits: Splits, low: float, high: float) -> Config:
    """Return the config of a range test: every step is logged, and training ends at a loss that is not finite."""
    require(0 < low < high, f"--lr-range {low:g} {high:g}: expected two learning rates, the lower one first")
    optimizer: Any = config.optimizer
    require(
        {"learning_rate", "schedule"} <= get_component_fields(optimizer).keys(),
        f"a range test needs an optimizer with the fields learning_rate and schedule; {optimizer!r} lacks one of them",
    )
    epochs = -(-STEPS // count_steps_per_epoch(len(splits.train), config.batch_size, config.remainder))
    optimizer = replace(optimizer, learning_rate=high, schedule=ExponentialIncrease(low, high))
    changes = {"log_every": 1, "steps_per_execution": 1, "non_finite": "abort"}
    return replace(config, optimizer=optimizer, epochs=epochs, patience=0, evaluate_train=False, **changes)


def smooth(losses: Float[np.ndarray, " steps"]) -> Float[np.ndarray, " steps"]:
    """Smooth losses with a Gaussian kernel, normalized at the ends."""
    steps = np.arange(len(losses))
    weights = np.exp(-0.5 * ((steps[:, None] - steps) / WIDTH) ** 2)
    return weights @ losses / weights.sum(axis=1)


def has_diverged(smoothed: Float[np.ndarray, " steps"]) -> bool:
    """Return whether the last loss is several times the minimum."""
    return bool(smoothed[-1] > DIVERGED * smoothed.min())


def suggest_rates(curve: RangeTestCurve) -> Suggestion:
    """Suggest learning rates to search between.

    Args:
        curve: The result of a range test.

    Returns:
        The learning rate of the steepest descent, and a tenth of that at which the loss diverges.

    Raises:
        UserError: If the loss never falls.
    """
    lowest = int(np.argmin(curve.smoothed))
    require(lowest > 0, f"the loss does not fall at any learning rate from {curve.rates[0]:g}; start at a lower one")
    slopes = np.gradient(curve.smoothed, np.log(curve.rates))
    highest = curve.rates[-1] / 10 if curve.diverged else curve.rates[lowest]
    return Suggestion(float(curve.rates[np.argmin(slopes[: lowest + 1])]), float(highest))
