"""Metrics. One is a frozen dataclass: `stats` of a batch add up over batches, and `compute` divides once.

So any split of the data into batches, padded or not, on any number of devices, gives the same value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxclf.types import Array, Labels, Logits, Mask

Stats = dict[str, Array]


@runtime_checkable
class Metric(Protocol):
    """What a config's `metrics` lists."""

    def stats(self, logits: Logits, labels: Labels, mask: Mask) -> Stats:
        """What the batch adds: sums and counts over the rows where `mask` is true."""
        ...

    def compute(self, stats: Any) -> dict[str, Any]:
        """Named values from the added-up stats: numbers, or arrays of them."""
        ...


def class_ids(labels: Labels) -> Int[Array, " b"]:
    """Integer labels as int32; of probabilities [b, classes], the largest."""
    return jnp.asarray(labels, jnp.int32) if jnp.ndim(labels) == 1 else jnp.argmax(labels, axis=-1)


def label_ranks(logits: Logits, labels: Labels) -> Int[Array, " b"]:
    """How many classes come before the label: 0 is right. Of equal logits the lower class comes first, as in argmax.

    Logits that are not finite rank nothing, so the label comes last.
    """
    ids = class_ids(labels)[:, None]
    label_logits = jnp.take_along_axis(logits, ids, axis=1)
    equal_before = (logits == label_logits) & (jnp.arange(logits.shape[1])[None, :] < ids)
    ranks = jnp.sum((logits > label_logits) | equal_before, axis=1)
    return jnp.where(jnp.isfinite(logits).all(axis=1), ranks, logits.shape[1])


def mean(values: Float[Array, " b"] | Bool[Array, " b"], mask: Mask) -> Stats:
    """Stats of a mean: the sum and the number of the rows that count."""
    return {"sum": jnp.sum(jnp.where(mask, values, 0)), "count": jnp.sum(mask)}


def divide(stats: Any) -> float:
    """A mean from its stats; of nothing, NaN."""
    return float(stats["sum"]) / int(stats["count"]) if stats["count"] else float("nan")


@dataclass(frozen=True)
class Accuracy:
    """Share of examples whose largest logit is the label's."""

    def stats(self, logits: Logits, labels: Labels, mask: Mask) -> Stats:
        """Right answers, and examples."""
        return mean(label_ranks(logits, labels) == 0, mask)

    def compute(self, stats: Any) -> dict[str, float]:
        """`accuracy`, from 0 to 1."""
        return {"accuracy": divide(stats)}


@dataclass(frozen=True)
class TopK:
    """Share of examples whose label is among the k largest logits."""

    k: int = 5
    """How many of the largest logits count as right."""

    def stats(self, logits: Logits, labels: Labels, mask: Mask) -> Stats:
        """Right answers, and examples."""
        return mean(label_ranks(logits, labels) < self.k, mask)

    def compute(self, stats: Any) -> dict[str, float]:
        """`top_<k>_accuracy`, from 0 to 1."""
        return {f"top_{self.k}_accuracy": divide(stats)}


@dataclass(frozen=True)
class Confusion:
    """The confusion matrix, and each class's accuracy (recall) from it."""

    def stats(self, logits: Logits, labels: Labels, mask: Mask) -> Stats:
        """Counts [true class, predicted class]."""
        classes = logits.shape[-1]
        cells = class_ids(labels) * classes + jnp.argmax(logits, axis=-1)
        counts = jax.ops.segment_sum(mask.astype(jnp.int32), cells, classes * classes)
        return {"counts": counts.reshape(classes, classes)}

    def compute(self, stats: Any) -> dict[str, np.ndarray]:
        """`confusion_matrix` [true, predicted] and `per_class_accuracy` [classes], NaN for a class without examples."""
        counts = np.asarray(stats["counts"])
        support = counts.sum(axis=1)
        per_class = np.where(support > 0, np.diag(counts) / np.maximum(support, 1), np.nan)
        return {"confusion_matrix": counts, "per_class_accuracy": per_class}
