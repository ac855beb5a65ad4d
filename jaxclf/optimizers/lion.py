"""Lion."""

from __future__ import annotations

from dataclasses import dataclass

import optax

from jaxclf.optimizers.base import check_rates
from jaxclf.optimizers.grouped import Chain, GroupedOptimizer
from jaxclf.optimizers.groups import Assignments


@dataclass(frozen=True, kw_only=True)
class Lion(GroupedOptimizer):
    """Lion: the sign of a moving average of gradients. X. Chen et al. (2023), arXiv:2302.06675.

    The learning rate is usually a third to a tenth of AdamW's, and the weight decay three to ten times AdamW's.
    """

    weight_decay: float = 0.1
    """Decoupled weight decay. A step subtracts learning rate times weight decay times the parameter."""
    beta1: float = 0.9
    """Weight of the moving average in the direction of a step."""
    beta2: float = 0.99
    """Decay of the moving average of gradients."""

    def __post_init__(self):
        super().__post_init__()
        check_rates(self.learning_rate, self.clip_norm, self.weight_decay, beta1=self.beta1, beta2=self.beta2)

    def build_chain(self, assignments: Assignments, decay: Chain) -> Chain:
        """Build what precedes the multiplication by the learning rate."""
        return optax.scale_by_lion(self.beta1, self.beta2), *decay
