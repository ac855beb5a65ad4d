"""Optimizers with groups of parameters: freezing, weight decay on kernels, learning rates by layer, clipping."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Literal, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from jaxclf.errors import UserError, require
from jaxclf.optimizers.base import add_clipping, check_rates
from jaxclf.optimizers.groups import (
    Assignment,
    Assignments,
    LayeredModel,
    assign_layers,
    list_parameters,
    match_frozen,
    select,
)
from jaxclf.optimizers.schedules import Constant, Schedule

Chain: TypeAlias = tuple[optax.GradientTransformation, ...]
"""Transformations that are applied one after the other."""

# Not 0: -0.0 + 0.0 is 0.0, while frozen parameters keep every bit.
FREEZE = optax.stateless(lambda updates, params: jax.tree.map(lambda update: -jnp.zeros_like(update), updates))


@dataclass(frozen=True)
class GroupedOptimizer:
    """The fields that optimizers with groups of parameters share, and the transformation that follows from them."""

    learning_rate: float
    """Peak learning rate."""
    _: KW_ONLY
    weight_decay: float = 0.0
    """Weight decay (0: none)."""
    decay: Literal["kernels", "all"] = "kernels"
    """Parameters that decay: those named "kernel", or all."""
    freeze: tuple[str, ...] = ()
    """Modules and parameters that are not trained, by patterns of their paths, such as "stem" and "stage*"."""
    layer_decay: float = 1.0
    """Factor of the learning rate from a layer to the one before it; the head has the full rate (1: off)."""
    head_rate: float = 1.0
    """Multiplier of the learning rate of the head."""
    clip_norm: float | None = None
    """Clip gradients to this global L2 norm, that of all trained parameters (None: off)."""
    schedule: Schedule = Constant()
    """Learning-rate schedule."""

    def __post_init__(self):
        check_rates(self.learning_rate, self.clip_norm, self.weight_decay)
        require(0 < self.layer_decay <= 1, f"layer_decay={self.layer_decay}: expected more than 0 and at most 1")
        require(self.head_rate > 0, f"head_rate={self.head_rate}: expected more than 0; freeze takes no rate")

    def build_chain(self, assignments: Assignments, decay: Chain) -> Chain:
        """Build what precedes the multiplication by the learning rate.

        Args:
            assignments: What each parameter gets.
            decay: Adds the decayed parameters; empty without weight decay.
        """
        raise NotImplementedError

    @property
    def needs_layers(self) -> bool:
        """Whether the model must declare its layers."""
        return self.layer_decay != 1 or self.head_rate != 1

    def learning_rates(self, total_steps: int, epochs: int = 1) -> optax.Schedule:
        """Build the learning-rate schedule of a run."""
        return self.schedule.build(self.learning_rate, total_steps, epochs)

    def build(self, total_steps: int, epochs: int = 1, model: nn.Module | None = None) -> optax.GradientTransformation:
        """Build the gradient transformation of a run."""
        rates = self.learning_rates(total_steps, epochs)

        def build_for(params: PyTree) -> optax.GradientTransformation:
            return self._build_groups(self.assign_groups(params, model), rates)

        return optax.GradientTransformation(
            lambda params: build_for(params).init(params),
            lambda updates, state, params=None: build_for(params).update(updates, state, params),
        )

    def assign_groups(self, params: PyTree, model: nn.Module | None = None) -> Assignments:
        """Assign each parameter to a group.

        Args:
            params: Parameters of the model; only their shapes are used.
            model: The model. It must be a `LayeredModel` for learning rates by layer.

        Returns:
            The assignments of all parameters, by path.

        Raises:
            UserError: If a pattern of `freeze` matches nothing, nothing is left to train, the model does not declare
                its layers but they are needed, or nothing decays.
        """
        parameters = list_parameters(params)
        paths = [each.path for each in parameters]
        frozen = match_frozen(self.freeze, paths)
        layers = self._assign_layers(model, paths) if self.needs_layers else dict.fromkeys(paths, 0)
        head = max(layers.values())
        assigned = {}
        for each in parameters:
            if each.path in frozen:
                assigned[each.path] = each._replace(labels=("frozen",), rate=0.0)
                continue
            labels, rate = self.group_parameter(each, layers[each.path], head)
            decay = self.weight_decay if self.is_decayed(each.path) else 0.0
            labels = (*labels, "decay" if decay else "no_decay") if self.weight_decay else labels
            assigned[each.path] = each._replace(labels=labels, rate=rate, decay=decay)
        require(
            not self.weight_decay or any(each.decay for each in assigned.values()),
            f"weight_decay={self.weight_decay} is for parameters named kernel, and none of them is trained; set decay "
            "to all, or weight_decay to 0",
        )
        return assigned

    def is_decayed(self, path: str) -> bool:
        """Return whether weight decay is for the parameter at a path."""
        return self.decay == "all" or path.rpartition("/")[2] == "kernel"

    def _assign_layers(self, model: nn.Module | None, paths: list[str]) -> dict[str, int]:
        if not isinstance(model, LayeredModel):
            raise UserError(
                f"layer_decay, head_rate and Muon need the layers of the model, and {type(model).__name__} declares "
                "none; add the property layer_groups to it, or use another optimizer without them"
            )
        return assign_layers(model.layer_groups, paths)

    def group_parameter(self, parameter: Assignment, layer: int, head: int) -> tuple[tuple[str, ...], float]:
        """Return the labels of a parameter's group, besides decay, and the multiplier of its learning rate.

        Args:
            parameter: The parameter; its path and shape are used.
            layer: Index of its layer.
            head: Index of the last layer.
        """
        if self.layer_decay == self.head_rate == 1:
            return (), 1.0
        if layer == head:
            return ("head",), self.head_rate
        return ("body" if self.layer_decay == 1 else f"layer_{layer}",), self.layer_decay ** (head - layer)

    def _build_groups(self, assignments: Assignments, rates: optax.Schedule) -> optax.GradientTransformation:
        decayed = select(assignments, lambda each: each.decay > 0)
        decay = (optax.add_decayed_weights(self.weight_decay, decayed),) if self.weight_decay else ()
        rated = any(each.rate not in (0, 1) for each in assignments.values())
        multiply = (scale_updates(select(assignments, lambda each: each.rate)),) if rated else ()
        steps = self.build_chain(assignments, decay)
        # Without groups, the state has the structure of optax's own optimizers.
        trained = add_clipping(optax.chain(*steps, *multiply, optax.scale_by_learning_rate(rates)), self.clip_norm)
        if not self.freeze:
            return trained
        labels = select(assignments, lambda each: "trained" if each.rate else "frozen")
        return optax.partition({"trained": trained, "frozen": FREEZE}, labels)


def scale_updates(get_factors: Callable[[PyTree], PyTree]) -> optax.GradientTransformation:
    """Multiply the update of each parameter by its factor, of a tree that is computed from that of the updates."""
    return optax.stateless(
        lambda updates, params: jax.tree.map(lambda update, factor: update * factor, updates, get_factors(updates))
    )
