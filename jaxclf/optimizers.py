"""Optimisers and learning-rate schedules. An optimiser is a frozen dataclass with `build(total_steps)`.

The parts are optax's; what is ours is how they are named and put together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import optax

from jaxclf.errors import require


@runtime_checkable
class Schedule(Protocol):
    """How the learning rate moves over a run, as a share of the optimiser's `learning_rate`."""

    def build(self, learning_rate: float, total_steps: int) -> optax.Schedule:
        """The learning rate as a function of the step, from 0 to `total_steps`."""
        ...


@runtime_checkable
class Optimizer(Protocol):
    """What a config's `optimizer` is."""

    def build(self, total_steps: int) -> optax.GradientTransformation:
        """The transformation from gradients to updates, for a run of `total_steps`."""
        ...

    def learning_rates(self, total_steps: int) -> optax.Schedule:
        """The learning rate of each step."""
        ...


@dataclass(frozen=True)
class Constant:
    """The same learning rate throughout."""

    def build(self, learning_rate: float, total_steps: int) -> optax.Schedule:
        """The learning rate as a function of the step."""
        return optax.constant_schedule(learning_rate)


@dataclass(frozen=True)
class WarmupCosine:
    """Up in a straight line, then down along half a cosine. I. Loshchilov, F. Hutter, "SGDR" (2017)."""

    warmup: float = 0.05
    """Share of all steps in which the learning rate rises from 0."""
    final: float = 0.0
    """Share of the learning rate that is left at the end."""

    def __post_init__(self):
        require(0 <= self.warmup < 1, f"warmup={self.warmup}: expected a share of all steps, at least 0 and below 1")

    def build(self, learning_rate: float, total_steps: int) -> optax.Schedule:
        """The learning rate as a function of the step."""
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
    """Up and down again along cosines, ending near nothing. L. Smith, N. Topin, "Super-convergence" (2018)."""

    peak_at: float = 0.3
    """Share of all steps after which the learning rate is highest."""
    start: float = 0.04
    """Share of the learning rate at the first step."""
    final: float = 4e-6
    """Share of the learning rate at the end."""

    def __post_init__(self):
        require(0 < self.peak_at < 1, f"peak_at={self.peak_at}: expected a share of all steps, between 0 and 1")
        require(0 < self.start <= 1 and 0 < self.final <= 1, "start and final: expected shares above 0, at most 1")

    def build(self, learning_rate: float, total_steps: int) -> optax.Schedule:
        """The learning rate as a function of the step."""
        return optax.cosine_onecycle_schedule(
            transition_steps=max(total_steps, 1),
            peak_value=learning_rate,
            pct_start=self.peak_at,
            div_factor=1 / self.start,
            # optax divides the first value by this, not the highest.
            final_div_factor=self.start / self.final,
        )


@dataclass(frozen=True)
class Sgd:
    """Stochastic gradient descent, with momentum if asked for."""

    learning_rate: float
    """The highest of the run; the schedule moves below it."""
    momentum: float = 0.0
    """Share of the last update that carries over."""
    nesterov: bool = False
    """Look ahead along the momentum. I. Sutskever et al. (2013)."""
    clip_norm: float | None = None
    """Gradients whose global L2 norm is larger are scaled down to it."""
    schedule: Schedule = Constant()
    """How the learning rate moves over the run."""

    def __post_init__(self):
        check_rates(self.learning_rate, self.clip_norm, momentum=self.momentum)
        require(self.momentum > 0 or not self.nesterov, "nesterov looks ahead along the momentum; set momentum too")

    def learning_rates(self, total_steps: int) -> optax.Schedule:
        """The learning rate of each step."""
        return self.schedule.build(self.learning_rate, total_steps)

    def build(self, total_steps: int) -> optax.GradientTransformation:
        """The transformation from gradients to updates, for a run of `total_steps`."""
        sgd = optax.sgd(self.learning_rates(total_steps), self.momentum or None, self.nesterov)
        return clipped(sgd, self.clip_norm)


@dataclass(frozen=True)
class Adam:
    """Adam, with decoupled weight decay if asked for (AdamW). D. Kingma, J. Ba (2015); Loshchilov, Hutter (2019)."""

    learning_rate: float
    """The highest of the run; the schedule moves below it."""
    beta1: float = 0.9
    """Decay of the running mean of gradients."""
    beta2: float = 0.999
    """Decay of the running mean of squared gradients."""
    epsilon: float = 1e-8
    """Added to the root of the running mean of squares."""
    weight_decay: float = 0.0
    """Share of each weight, biases included, taken off a step, times the learning rate."""
    clip_norm: float | None = None
    """Gradients whose global L2 norm is larger are scaled down to it."""
    schedule: Schedule = Constant()
    """How the learning rate moves over the run."""

    def __post_init__(self):
        check_rates(self.learning_rate, self.clip_norm, beta1=self.beta1, beta2=self.beta2)
        require(self.weight_decay >= 0, f"weight_decay={self.weight_decay}: expected at least 0")

    def learning_rates(self, total_steps: int) -> optax.Schedule:
        """The learning rate of each step."""
        return self.schedule.build(self.learning_rate, total_steps)

    def build(self, total_steps: int) -> optax.GradientTransformation:
        """The transformation from gradients to updates, for a run of `total_steps`."""
        rates = self.learning_rates(total_steps)
        adam = optax.adamw(rates, self.beta1, self.beta2, self.epsilon, weight_decay=self.weight_decay)
        return clipped(adam, self.clip_norm)


def check_rates(learning_rate: float, clip_norm: float | None, **decays: float) -> None:
    """Raise UserError where a rate is out of its range."""
    require(0 <= learning_rate < math.inf, f"learning_rate={learning_rate}: expected at least 0")
    require(clip_norm is None or clip_norm > 0, f"clip_norm={clip_norm}: expected more than 0, or None")
    for name, decay in decays.items():
        require(0 <= decay < 1, f"{name}={decay}: expected at least 0 and below 1")


def clipped(optimizer: optax.GradientTransformation, norm: float | None) -> optax.GradientTransformation:
    """The optimiser behind global-norm clipping, where a norm is given."""
    return optimizer if norm is None else optax.chain(optax.clip_by_global_norm(norm), optimizer)
