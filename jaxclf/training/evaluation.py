"""Evaluation: every example counts exactly once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf.training.devices import Devices
from jaxclf.training.pipeline import eval_batches
from jaxclf.training.step import Recipe, summarize, zero_stats
from jaxclf.types import Batch, Split, Variables


def batch_shape(split: Split, batch_size: int) -> Batch:
    """The shapes and dtypes of a batch of a split."""
    images, labels = split.images[:1], split.labels
    return Batch(
        jax.ShapeDtypeStruct((batch_size, *images.shape[1:]), images.dtype),
        jax.ShapeDtypeStruct((batch_size, *labels.shape[1:]), labels.dtype),
        jax.ShapeDtypeStruct((batch_size,), jnp.bool_),
    )


class Evaluation(NamedTuple):
    """What a model makes of a split."""

    values: dict[str, Any]  # loss and metrics
    logits: np.ndarray  # [n, classes], or empty where they were not asked for


def evaluate(
    recipe: Recipe,
    devices: Devices,
    eval_step: Callable,
    variables: Variables,
    split: Split,
    batch_size: int,
    keep_logits: bool = False,
    between: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Evaluate every example of a split exactly once, whatever the batch size; `between` is called after each."""
    batch_size = -(-min(batch_size, len(split)) // devices.mesh.size) * devices.mesh.size
    stats = devices.replicate(zero_stats(recipe, batch_shape(split, batch_size)))
    logits = []
    for batch in eval_batches(split, batch_size, devices.rows(batch_size)):
        stats, batch_logits = eval_step(variables, stats, batch)
        if keep_logits:
            logits.append(batch_logits)
        between()
    kept = np.concatenate(jax.device_get(logits))[: len(split)] if logits else np.empty((0, 0), np.float32)
    return Evaluation(summarize(recipe, stats), kept)
