"""Losses: frozen dataclasses called as `loss(logits, labels)`, which return the loss of each example."""

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
    """The protocol of losses. Training averages over examples at the end, so losses do not."""

    def __call__(self, logits: Logits, labels: Labels) -> Float[Array, " b"]:
        """Compute the loss of each example [b] from logits [b, classes] and labels [b] or [b, classes]."""
        ...


@dataclass(frozen=True)
class CrossEntropy:
    """Softmax cross-entropy in nats, with optional label smoothing."""

    label_smoothing: float = 0.0
    """Probability that is distributed evenly over all classes. C. Szegedy et al. (2016), arXiv:1512.00567."""

    def __post_init__(self):
        share = self.label_smoothing
        require(0 <= share < 1, f"label_smoothing={share}: expected at least 0 and below 1")

    def __call__(self, logits: Logits, labels: Labels) -> Float[Array, " b"]:
        """Compute the loss of each example.

        Args:
            logits: Logits [b, classes].
            labels: Integer labels [b], or probabilities [b, classes].

        Returns:
            Losses [b].
        """
        classes = logits.shape[-1]
        if jnp.ndim(labels) == 1:
            if self.label_smoothing == 0:
                return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            labels = jax.nn.one_hot(labels, classes)
        smoothed = labels * (1 - self.label_smoothing) + self.label_smoothing / classes
        return optax.softmax_cross_entropy(logits, smoothed)
