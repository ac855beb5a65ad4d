"""Metrics: frozen dataclasses whose `stats` of a batch are summed over batches, and whose `compute` divides once.

Values do not depend on the batch size, on padding or on the number of devices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, PyTree

from jaxclf.types import Array, Labels, Logits, Mask, promote_float

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Stats = dict[str, Array]


@runtime_checkable
class Metric(Protocol):
    """The protocol of metrics."""

    def stats(self, logits: Logits, labels: Labels, mask: Mask) -> Stats:
        """Compute the sums and counts of a batch.

        Args:
            logits: Logits [b, classes].
            labels: Integer labels [b], or probabilities [b, classes].
            mask: Booleans [b], False for rows that are padding and must not count.

        Returns:
            Arrays that are summed over batches.
        """
        ...

    def compute(self, stats: PyTree) -> dict[str, Any]:
        """Compute the values of the metric.

        Args:
            stats: The sum of the stats of all batches.

        Returns:
            Numbers or arrays by name.
        """
        ...


def get_class_ids(labels: Labels) -> Int[Array, " b"]:
    """Return integer labels as int32, and for probabilities [b, classes] the most probable classes."""
    return jnp.asarray(labels, jnp.int32) if jnp.ndim(labels) == 1 else jnp.argmax(labels, axis=-1)


def rank_labels(logits: Logits, labels: Labels) -> Int[Array, " b"]:
    """Return the rank of each label by its logit, where 0 is a correct prediction.

    Of equal logits, the lower class ranks first, as in argmax. With NaN or infinite logits the label ranks last.
    """
    ids = get_class_ids(labels)[:, None]
    label_logits = jnp.take_along_axis(logits, ids, axis=1)
    equal_before = (logits == label_logits) & (jnp.arange(logits.shape[1])[None, :] < ids)
    ranks = jnp.sum((logits > label_logits) | equal_before, axis=1)
    return jnp.where(jnp.isfinite(logits).all(axis=1), ranks, logits.shape[1])


def mean(values: Float[Array, " b"] | Bool[Array, " b"], mask: Mask) -> Stats:
    """Return the stats of a mean: the sum over the rows of the mask, and their number."""
    values = jnp.where(mask, values, 0)
    floats = jnp.issubdtype(values.dtype, jnp.floating)
    return {"sum": jnp.sum(promote_float(values) if floats else values), "count": jnp.sum(mask)}


def divide(stats: PyTree) -> float:
    """Return a mean from its stats, or NaN without examples."""
    return float(stats["sum"]) / int(stats["count"]) if stats["count"] else float("nan")


@dataclass(frozen=True)
class Accuracy:
    """Fraction of examples whose label has the largest logit."""

    def stats(self, logits: Logits, labels: Labels, mask: Mask) -> Stats:
        """Count correct predictions and examples."""
        return mean(rank_labels(logits, labels) == 0, mask)

    def compute(self, stats: PyTree) -> dict[str, float]:
        """Return `accuracy`, from 0 to 1."""
        return {"accuracy": divide(stats)}


@dataclass(frozen=True)
class TopK:
    """Fraction of examples whose label is among the k largest logits."""

    k: int = 5
    """Number of largest logits."""

    def stats(self, logits: Logits, labels: Labels, mask: Mask) -> Stats:
        """Count correct predictions and examples."""
        return mean(rank_labels(logits, labels) < self.k, mask)

    def compute(self, stats: PyTree) -> dict[str, float]:
        """Return `top_<k>_accuracy`, from 0 to 1."""
        return {f"top_{self.k}_accuracy": divide(stats)}


@dataclass(frozen=True)
class Confusion:
    """The confusion matrix and the accuracy (recall) of each class."""

    def stats(self, logits: Logits, labels: Labels, mask: Mask) -> Stats:
        """Count examples by class [true, predicted]."""
        classes = logits.shape[-1]
        cells = get_class_ids(labels) * classes + jnp.argmax(logits, axis=-1)
        counts = jax.ops.segment_sum(mask.astype(jnp.int32), cells, classes * classes)
        return {"counts": counts.reshape(classes, classes)}

    def compute(self, stats: PyTree) -> dict[str, np.ndarray]:
        """Return `confusion_matrix` [true, predicted] and `per_class_accuracy` [classes], NaN without examples."""
        counts = np.asarray(stats["counts"])
        return {"confusion_matrix": counts, "per_class_accuracy": compute_recalls(counts)}


def compute_recalls(matrix: np.ndarray | csr_array) -> np.ndarray:
    """Compute the accuracy of each class from a confusion matrix.

    Args:
        matrix: Counts [true, predicted].

    Returns:
        Proportions [classes], NaN for classes without examples.
    """
    support = matrix.sum(axis=1)
    return np.where(support > 0, matrix.diagonal() / np.maximum(support, 1), np.nan)
