"""The protocol of optimizers, and checks of their fields."""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

import flax.linen as nn
import optax

from jaxclf.errors import require


@runtime_checkable
class Optimizer(Protocol):
    """The protocol of optimizers."""

    def build(self, total_steps: int, epochs: int = 1, model: nn.Module | None = None) -> optax.GradientTransformation:
        """Build the gradient transformation of a run.

        Args:
            total_steps: The number of steps of the run.
            epochs: The number of epochs of the run.
            model: The model that is trained.

        Returns:
            The transformation of gradients to updates.
        """
        ...

    def learning_rates(self, total_steps: int, epochs: int = 1) -> optax.Schedule:
        """Build the learning-rate schedule of a run.

        Args:
            total_steps: The number of steps of the run.
            epochs: The number of epochs of the run.

        Returns:
            The learning rate as a function of the step.
        """
        ...


def check_rates(learning_rate: float, clip_norm: float | None, weight_decay: float, **decays: float) -> None:
    """Raise UserError if a learning rate, a norm or a decay is out of range."""
    require(0 <= learning_rate < math.inf, f"learning_rate={learning_rate}: expected at least 0")
    require(clip_norm is None or clip_norm > 0, f"clip_norm={clip_norm}: expected more than 0, or None")
    require(0 <= weight_decay < math.inf, f"weight_decay={weight_decay}: expected at least 0")
    for name, decay in decays.items():
        require(0 <= decay < 1, f"{name}={decay}: expected at least 0 and below 1")


def add_clipping(optimizer: optax.GradientTransformation, norm: float | None) -> optax.GradientTransformation:
    """Clip gradients to a global norm before an optimizer, unless the norm is None."""
    return optimizer if norm is None else optax.chain(optax.clip_by_global_norm(norm), optimizer)
