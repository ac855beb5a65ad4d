"""Optimizers and learning-rate schedules: frozen dataclasses that build those of optax."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import optax

from jaxclf.errors import require


@runtime_checkable
class Schedule(Protocol):
    """The protocol of learning-rate schedules."""

    def build(self, learning_rate: float, total_steps: int) -> optax.Schedule:
        """Build the schedule of a run.

        Args:
            learning_rate: The peak learning rate.
            total_steps: The number of steps of the run.

        Returns:
            The learning rate as a function of the step, from 0 to `total_steps`.
        """
        ...


@runtime_checkable
class Optimizer(Protocol):
    """The protocol of optimizers."""

    def build(self, total_steps: int) -> optax.GradientTransformation:
        """Build the gradient transformation of a run.

        Args:
            total_steps: The number of steps of the run.

        Returns:
            The transformation of gradients to updates.
        """
        ...

    def learning_rates(self, total_steps: int) -> optax.Schedule:
        """Build the learning-rate schedule of a run.

        Args:
            total_steps: The number of steps of the run.

        Returns:
            The learning rate as a function of the step.
        """
        ...


@dataclass(frozen=True)
class Constant:
    """A constant learning rate."""

    def build(self, learning_rate: float, total_steps: int) -> optax.Schedule:
        """Build the schedule of a run."""
        return optax.constant_schedule(learning_rate)


@dataclass(frozen=True)
class WarmupCosine:
    """Linear warmup, then cosine decay. I. Loshchilov, F. Hutter, "SGDR" (2017), arXiv:1608.03983."""

    warmup: float = 0.05
    """Length of the warmup from 0, as a fraction of all steps."""
    final: float = 0.0
    """Final learning rate, as a fraction of the peak."""

    def __post_init__(self):
        require(0 <= self.warmup < 1, f"warmup={self.warmup}: expected a fraction of all steps, at least 0 and below 1")

    def build(self, learning_rate: float, total_steps: int) -> optax.Schedule:
        """Build the schedule of a run."""
        warmup_steps = min(round(self.warmup * total_steps), total_steps - 1)
        return optax.warmup_cosine_decay_schedule(
            init_value=0.0 if warmup_steps else learning_rate,
            peak_value=learning_rate,
            warmup_steps=warmup_steps,
            decay_steps=max(total_steps, 1),
            end_value=learning_rate * self.final,
        )


@dataclass(frozen=True)
class OneCycle:
    """One cosine cycle up and down. L. Smith, N. Topin, "Super-convergence" (2018), arXiv:1708.07120."""

    peak_at: float = 0.3
    """Position of the peak, as a fraction of all steps."""
    start: float = 0.04
    """Initial learning rate, as a fraction of the peak."""
    final: float = 4e-6
    """Final learning rate, as a fraction of the peak."""

    def __post_init__(self):
        require(0 < self.peak_at < 1, f"peak_at={self.peak_at}: expected a fraction of all steps, between 0 and 1")
        require(
            0 < self.start <= 1 and 0 < self.final <= 1, "start and final: expected fractions above 0 and at most 1"
        )

    def build(self, learning_rate: float, total_steps: int) -> optax.Schedule:
        """Build the schedule of a run."""
        return optax.cosine_onecycle_schedule(
            transition_steps=max(total_steps, 1),
            peak_value=learning_rate,
            pct_start=self.peak_at,
            div_factor=1 / self.start,
            # optax divides the initial value by this, not the peak.
            final_div_factor=self.start / self.final,
        )


@dataclass(frozen=True)
class Sgd:
    """Stochastic gradient descent, optionally with momentum."""

    learning_rate: float
    """Peak learning rate."""
    momentum: float = 0.0
    """Decay of the accumulated updates (0: no momentum)."""
    nesterov: bool = False
    """Use Nesterov momentum. I. Sutskever et al. (2013)."""
    clip_norm: float | None = None
    """Clip gradients to this global L2 norm (None: off)."""
    schedule: Schedule = Constant()
    """Learning-rate schedule."""

    def __post_init__(self):
        check_rates(self.learning_rate, self.clip_norm, momentum=self.momentum)
        require(self.momentum > 0 or not self.nesterov, "nesterov=True needs momentum; set momentum above 0")

    def learning_rates(self, total_steps: int) -> optax.Schedule:
        """Build the learning-rate schedule of a run."""
        return self.schedule.build(self.learning_rate, total_steps)

    def build(self, total_steps: int) -> optax.GradientTransformation:
        """Build the gradient transformation of a run."""
        sgd = optax.sgd(self.learning_rates(total_steps), self.momentum or None, self.nesterov)
        return add_clipping(sgd, self.clip_norm)


@dataclass(frozen=True)
class Adam:
    """Adam, optionally with decoupled weight decay (AdamW).

    D. Kingma, J. Ba (2015), arXiv:1412.6980; I. Loshchilov, F. Hutter (2019), arXiv:1711.05101.
    """

    learning_rate: float
    """Peak learning rate."""
    beta1: float = 0.9
    """Decay of the moving average of gradients."""
    beta2: float = 0.999
    """Decay of the moving average of squared gradients."""
    epsilon: float = 1e-8
    """Added to the denominator, for numerical stability."""
    weight_decay: float = 0.0
    """Decoupled weight decay (AdamW), on all parameters."""
    clip_norm: float | None = None
    """Clip gradients to this global L2 norm (None: off)."""
    schedule: Schedule = Constant()
    """Learning-rate schedule."""

    def __post_init__(self):
        check_rates(self.learning_rate, self.clip_norm, beta1=self.beta1, beta2=self.beta2)
        require(self.weight_decay >= 0, f"weight_decay={self.weight_decay}: expected at least 0")

    def learning_rates(self, total_steps: int) -> optax.Schedule:
        """Build the learning-rate schedule of a run."""
        return self.schedule.build(self.learning_rate, total_steps)

    def build(self, total_steps: int) -> optax.GradientTransformation:
        """Build the gradient transformation of a run."""
        rates = self.learning_rates(total_steps)
        adam = optax.adamw(rates, self.beta1, self.beta2, self.epsilon, weight_decay=self.weight_decay)
        return add_clipping(adam, self.clip_norm)


def check_rates(learning_rate: float, clip_norm: float | None, **decays: float) -> None:
    """Raise UserError if a learning rate, a norm or a decay is out of range."""
    require(0 <= learning_rate < math.inf, f"learning_rate={learning_rate}: expected at least 0")
    require(clip_norm is None or clip_norm > 0, f"clip_norm={clip_norm}: expected more than 0, or None")
    for name, decay in decays.items():
        require(0 <= decay < 1, f"{name}={decay}: expected at least 0 and below 1")


def add_clipping(optimizer: optax.GradientTransformation, norm: float | None) -> optax.GradientTransformation:
    """Clip gradients to a global norm before an optimizer, unless the norm is None."""
    return optimizer if norm is None else optax.chain(optax.clip_by_global_norm(norm), optimizer)
