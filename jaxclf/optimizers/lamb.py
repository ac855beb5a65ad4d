"""LAMB."""

from __future__ import annotations

from dataclasses import dataclass

import optax

from jaxclf.optimizers.base import check_rates
from jaxclf.optimizers.grouped import Chain, GroupedOptimizer
from jaxclf.optimizers.groups import Assignments, select


@dataclass(frozen=True, kw_only=True)
class Lamb(GroupedOptimizer):
    """LAMB: Adam whose update of a kernel is scaled to the norm of the kernel. Y. You et al. (2020), arXiv:1904.00962.

    As in the authors' code, parameters that do not decay are not scaled: by default biases, scales and embeddings.
    """

    weight_decay: float = 0.01
    """Decoupled weight decay, part of the update that is scaled."""
    beta1: float = 0.9
    """Decay of the moving average of gradients."""
    beta2: float = 0.999
    """Decay of the moving average of squared gradients."""
    epsilon: float = 1e-6
    """Added to the denominator, for numerical stability."""

    def __post_init__(self):
        super().__post_init__()
        check_rates(self.learning_rate, self.clip_norm, self.weight_decay, beta1=self.beta1, beta2=self.beta2)

    def build_chain(self, assignments: Assignments, decay: Chain) -> Chain:
        """Build what precedes the multiplication by the learning rate."""
        scaled = select(assignments, lambda each: self.is_decayed(each.path))
        trust = optax.masked(optax.scale_by_trust_ratio(), scaled)
        return optax.scale_by_adam(self.beta1, self.beta2, self.epsilon), *decay, trust
