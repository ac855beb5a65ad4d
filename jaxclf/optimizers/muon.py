"""Muon."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod, sqrt

import optax
from optax.contrib import MuonDimensionNumbers, scale_by_muon

from jaxclf.errors import require
from jaxclf.optimizers.base import check_rates
from jaxclf.optimizers.grouped import Chain, GroupedOptimizer, scale_updates
from jaxclf.optimizers.groups import Assignment, Assignments, select

PROJECTIONS = ("query", "key", "value")
"""Modules whose kernels [inputs, heads, outputs] have several axes of outputs."""


@dataclass(frozen=True, kw_only=True)
class Muon(GroupedOptimizer):
    """Muon: momentum, orthogonalized as a matrix, for hidden kernels, and AdamW for all other parameters.

    Kernels of dense layers and of attention are matrices of inputs times outputs, those of convolutions of
    height · width · inputs times outputs. AdamW trains the first and the last layer, depthwise convolutions, biases,
    scales, embeddings and tokens.

    K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024); J. Liu et al., "Muon is
    scalable for LLM training" (2025), arXiv:2502.16982.
    """

    weight_decay: float = 0.1
    """Decoupled weight decay. A step subtracts learning rate times weight decay times the parameter."""
    momentum: float = 0.95
    """Decay of the moving average of gradients that is orthogonalized."""
    nesterov: bool = True
    """Use Nesterov momentum."""
    rms: float = 0.2
    """Root mean square of the orthogonalized updates before the learning rate; 0.2 is similar to AdamW's."""
    adamw_rate: float = 1.0
    """Multiplier of the learning rate of the parameters that AdamW trains."""
    beta1: float = 0.9
    """AdamW: decay of the moving average of gradients."""
    beta2: float = 0.999
    """AdamW: decay of the moving average of squared gradients."""
    epsilon: float = 1e-8
    """Added to denominators, for numerical stability."""

    def __post_init__(self):
        super().__post_init__()
        decays = {"momentum": self.momentum, "beta1": self.beta1, "beta2": self.beta2}
        check_rates(self.learning_rate, self.clip_norm, self.weight_decay, **decays)
        require(self.rms > 0, f"rms={self.rms}: expected more than 0")
        require(self.adamw_rate > 0, f"adamw_rate={self.adamw_rate}: expected more than 0")

    @property
    def needs_layers(self) -> bool:
        """Whether the model must declare its layers."""
        return True

    def group_parameter(self, parameter: Assignment, layer: int, head: int) -> tuple[tuple[str, ...], float]:
        """Return the labels of a parameter's group, besides decay, and the multiplier of its learning rate."""
        labels, rate = super().group_parameter(parameter, layer, head)
        if 0 < layer < head and is_matrix(parameter):
            return ("muon", *labels), rate
        return ("adamw", *labels), rate * self.adamw_rate

    def build_chain(self, assignments: Assignments, decay: Chain) -> Chain:
        """Build what precedes the multiplication by the learning rate."""
        axes = select(assignments, lambda each: MuonDimensionNumbers(*split_axes(each)))

        def get_factor(parameter: Assignment) -> float:
            return self.rms * sqrt(max(prod(parameter.shape[i] for i in axes) for axes in split_axes(parameter)))

        scale = scale_updates(select(assignments, get_factor))
        orthogonalize = scale_by_muon(
            beta=self.momentum, eps=self.epsilon, nesterov=self.nesterov, weight_dimension_numbers=axes
        )
        adam = optax.scale_by_adam(self.beta1, self.beta2, self.epsilon)
        labels = select(assignments, lambda each: each.labels[0])
        return optax.partition({"muon": optax.chain(orthogonalize, scale), "adamw": adam}, labels), *decay


def is_matrix(parameter: Assignment) -> bool:
    """Return whether a parameter is a kernel that maps all inputs to all outputs."""
    depthwise = len(parameter.shape) == 4 and parameter.shape[-2] == 1
    return parameter.path.endswith("/kernel") and len(parameter.shape) > 1 and not depthwise


def split_axes(parameter: Assignment) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the axes of a kernel that are inputs, and those that are outputs."""
    axes = tuple(range(len(parameter.shape)))
    inputs = 1 if parameter.path.split("/")[-2] in PROJECTIONS else len(axes) - 1
    return axes[:inputs], axes[inputs:]
