"""Losses. One is a frozen dataclass: `loss(logits, labels)` gives a number an example, reduced once and last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float

from jaxclf.errors import require
from jaxclf.types import Array, Labels, Logits


@runtime_checkable
class Loss(Protocol):
    """What a config's `loss` is."""

    def __call__(self, logits: Logits, labels: Labels) -> Float[Array, " b"]:
        """The loss of each example."""
        ...


@dataclass(frozen=True)
class CrossEntropy:
    """Softmax cross-entropy, in nats, from integer labels [b] or probabilities [b, classes] (one-hot or soft)."""

    label_smoothing: float = 0.0
    """Share of the label's weight that is spread evenly over all classes. C. Szegedy et al. (2016)."""

    def __post_init__(self):
        share = self.label_smoothing
        require(0 <= share < 1, f"label_smoothing={share}: expected at least 0 and below 1")

    def __call__(self, logits: Logits, labels: Labels) -> Float[Array, " b"]:
        """The loss of each example."""
        classes = logits.shape[-1]
        if jnp.ndim(labels) == 1:
            if self.label_smoothing == 0:
                return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            labels = jax.nn.one_hot(labels, classes)
        smoothed = labels * (1 - self.label_smoothing) + self.label_smoothing / classes
        return optax.softmax_cross_entropy(logits, smoothed)
