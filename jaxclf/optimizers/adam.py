"""Adam and AdamW."""

from __future__ import annotations

from dataclasses import dataclass

import flax.linen as nn
import optax
from jaxtyping import PyTree

from jaxclf.optimizers.base import add_clipping, check_rates
from jaxclf.optimizers.grouped import Chain, GroupedOptimizer
from jaxclf.optimizers.groups import Assignments, list_parameters
from jaxclf.optimizers.schedules import Constant, Schedule


@dataclass(frozen=True)
class Adam:
    """Adam, optionally with decoupled weight decay on all parameters; for decay on kernels alone see `AdamW`.

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
        check_rates(self.learning_rate, self.clip_norm, self.weight_decay, beta1=self.beta1, beta2=self.beta2)

    def learning_rates(self, total_steps: int, epochs: int = 1) -> optax.Schedule:
        """Build the learning-rate schedule of a run."""
        return self.schedule.build(self.learning_rate, total_steps, epochs)

    def build(self, total_steps: int, epochs: int = 1, model: nn.Module | None = None) -> optax.GradientTransformation:
        """Build the gradient transformation of a run."""
        rates = self.learning_rates(total_steps, epochs)
        adam = optax.adamw(rates, self.beta1, self.beta2, self.epsilon, weight_decay=self.weight_decay)
        return add_clipping(adam, self.clip_norm)

    def assign_groups(self, params: PyTree, model: nn.Module | None = None) -> Assignments:
        """Assign all parameters to one group."""
        return {each.path: each._replace(decay=self.weight_decay) for each in list_parameters(params)}


@dataclass(frozen=True, kw_only=True)
class AdamW(GroupedOptimizer):
    """Adam with decoupled weight decay on kernels. I. Loshchilov, F. Hutter (2019), arXiv:1711.05101."""

    weight_decay: float = 0.01
    """Decoupled weight decay. A step subtracts learning rate times weight decay times the parameter."""
    beta1: float = 0.9
    """Decay of the moving average of gradients."""
    beta2: float = 0.999
    """Decay of the moving average of squared gradients."""
    epsilon: float = 1e-8
    """Added to the denominator, for numerical stability."""

    def __post_init__(self):
        super().__post_init__()
        check_rates(self.learning_rate, self.clip_norm, self.weight_decay, beta1=self.beta1, beta2=self.beta2)

    def build_chain(self, assignments: Assignments, decay: Chain) -> Chain:
        """Build what precedes the multiplication by the learning rate."""
        return optax.scale_by_adam(self.beta1, self.beta2, self.epsilon), *decay
