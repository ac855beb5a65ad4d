"""Learning-rate schedules: frozen dataclasses that build those of optax."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import optax

from jaxclf.errors import require

Unit: TypeAlias = Literal["fraction", "epochs", "steps"]
"""What a time in a run is measured in: as a fraction of all steps, in epochs, or in steps."""


@runtime_checkable
class Schedule(Protocol):
    """The protocol of learning-rate schedules."""

    def build(self, learning_rate: float, total_steps: int, epochs: int = 1) -> optax.Schedule:
        """Build the schedule of a run.

        Args:
            learning_rate: The peak learning rate.
            total_steps: The number of steps of the run.
            epochs: The number of epochs of the run.

        Returns:
            The learning rate as a function of the step, from 0 to `total_steps`.
        """
        ...


@dataclass(frozen=True)
class Constant:
    """A constant learning rate."""

    def build(self, learning_rate: float, total_steps: int, epochs: int = 1) -> optax.Schedule:
        """Build the schedule of a run."""
        return optax.constant_schedule(learning_rate)


@dataclass(frozen=True)
class _Warmup:
    """Linear warmup, then a decay."""

    warmup: float = 0.05
    """Length of the warmup from 0, in `unit`. It ends before the last step of a run."""
    final: float = 0.0
    """Final learning rate, as a fraction of the peak."""
    unit: Unit = "fraction"
    """Unit of `warmup`: a fraction of all steps, epochs or steps."""

    def __post_init__(self):
        _check_time("warmup", self.warmup, self.unit)


@dataclass(frozen=True)
class WarmupCosine(_Warmup):
    """Linear warmup, then cosine decay. I. Loshchilov, F. Hutter, "SGDR" (2017), arXiv:1608.03983."""

    def build(self, learning_rate: float, total_steps: int, epochs: int = 1) -> optax.Schedule:
        """Build the schedule of a run."""
        warmup_steps = _count_steps(self.warmup, self.unit, total_steps, epochs)
        return optax.warmup_cosine_decay_schedule(
            init_value=0.0 if warmup_steps else learning_rate,
            peak_value=learning_rate,
            warmup_steps=warmup_steps,
            decay_steps=max(total_steps, 1),
            end_value=learning_rate * self.final,
        )


@dataclass(frozen=True)
class WarmupLinear(_Warmup):
    """Linear warmup, then linear decay. A. Defazio et al., "Optimal linear decay learning rate schedules" (2023).

    arXiv:2310.07831.
    """

    def build(self, learning_rate: float, total_steps: int, epochs: int = 1) -> optax.Schedule:
        """Build the schedule of a run."""
        warmup_steps = _count_steps(self.warmup, self.unit, total_steps, epochs)
        warmup = optax.linear_schedule(0.0, learning_rate, warmup_steps)
        decay = optax.linear_schedule(learning_rate, learning_rate * self.final, max(total_steps - warmup_steps, 1))
        return optax.join_schedules([warmup, decay], [warmup_steps])


@dataclass(frozen=True)
class OneCycle:
    """One cosine cycle up and down. L. Smith, N. Topin, "Super-convergence" (2018), arXiv:1708.07120."""

    peak_at: float = 0.3
    """Position of the peak, in `unit`. It is before the last step of a run."""
    start: float = 0.04
    """Initial learning rate, as a fraction of the peak."""
    final: float = 4e-6
    """Final learning rate, as a fraction of the peak."""
    unit: Unit = "fraction"
    """Unit of `peak_at`: a fraction of all steps, epochs or steps."""

    def __post_init__(self):
        _check_time("peak_at", self.peak_at, self.unit)
        require(self.peak_at > 0, f"peak_at={self.peak_at}: expected more than 0")
        require(
            0 < self.start <= 1 and 0 < self.final <= 1, "start and final: expected fractions above 0 and at most 1"
        )

    def build(self, learning_rate: float, total_steps: int, epochs: int = 1) -> optax.Schedule:
        """Build the schedule of a run."""
        steps = max(total_steps, 1)
        peak_at = self.peak_at
        if self.unit != "fraction":
            # optax rounds the step of the peak down.
            peak_at = (_count_steps(self.peak_at, self.unit, steps, epochs) + 0.5) / steps
        return optax.cosine_onecycle_schedule(
            transition_steps=steps,
            peak_value=learning_rate,
            pct_start=peak_at,
            div_factor=1 / self.start,
            # optax divides the initial value by this, not the peak.
            final_div_factor=self.start / self.final,
        )


def _check_time(name: str, value: float, unit: Unit) -> None:
    """Raise UserError unless a time is at least 0 and, as a fraction, below 1."""
    if unit == "fraction":
        fix = "; for others set unit to epochs or steps" if value >= 1 else ""
        require(0 <= value < 1, f"{name}={value}: expected a fraction of all steps, at least 0 and below 1{fix}")
    require(value >= 0, f"{name}={value}: expected at least 0")


def _count_steps(value: float, unit: Unit, total_steps: int, epochs: int) -> int:
    """Convert a time in a run to steps, of which at least one is left."""
    steps = value * {"fraction": total_steps, "epochs": total_steps / epochs, "steps": 1}[unit]
    return min(round(steps), total_steps - 1)
