"""Stochastic gradient descent."""

from __future__ import annotations

from dataclasses import dataclass

import optax

from jaxclf.errors import require
from jaxclf.optimizers.base import check_rates
from jaxclf.optimizers.grouped import Chain, GroupedOptimizer
from jaxclf.optimizers.groups import Assignments


@dataclass(frozen=True)
class Sgd(GroupedOptimizer):
    """Stochastic gradient descent, optionally with momentum and weight decay."""

    momentum: float = 0.0
    """Decay of the accumulated updates (0: no momentum)."""
    nesterov: bool = False
    """Use Nesterov momentum. I. Sutskever et al. (2013)."""
    decoupled: bool = False
    """Apply weight decay after momentum; False: add it to the gradient (L2 regularization), as PyTorch does."""

    def __post_init__(self):
        super().__post_init__()
        check_rates(self.learning_rate, self.clip_norm, self.weight_decay, momentum=self.momentum)
        require(self.momentum > 0 or not self.nesterov, "nesterov=True needs momentum; set momentum above 0")

    def build_chain(self, assignments: Assignments, decay: Chain) -> Chain:
        """Build what precedes the multiplication by the learning rate."""
        momentum = optax.trace(self.momentum, self.nesterov) if self.momentum else optax.identity()
        return (momentum, *decay) if self.decoupled else (*decay, momentum)
