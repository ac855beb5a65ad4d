"""Evaluation of a split: every example counts exactly once, whatever the batch size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxclf.augment import compute_input_shape
from jaxclf.config import Config
from jaxclf.models.memory import choose_eval_batch_size
from jaxclf.training.devices import Devices
from jaxclf.training.pipeline import read_eval_batches
from jaxclf.training.run_ahead import RunAheadLimit
from jaxclf.training.state import summarize, zero_sums
from jaxclf.training.step_config import StepConfig
from jaxclf.training.user_code import explain_out_of_memory, explain_tracing_errors
from jaxclf.types import Batch, Split, Variables


class Evaluation(NamedTuple):
    """Metrics of a split, and the logits they were computed from."""

    values: dict[str, Any]
    """Loss and metrics by name."""
    logits: Float[np.ndarray, "n classes"]
    """Empty if the logits were not kept."""


def get_eval_batch_size(config: Config, image_shape: tuple[int, int, int]) -> int:
    """Return the number of images that are evaluated together."""
    size = config.eval_batch_size
    shape = compute_input_shape(config.evaluation_transform, image_shape)
    return choose_eval_batch_size(config.model, shape) if size == "auto" else size


def get_batch_shape(split: Split, batch_size: int) -> Batch:
    """Return the shapes and dtypes of a training batch of a split."""
    images, labels, weights = split.images[:1], split.labels, split.sample_weight
    return Batch(
        jax.ShapeDtypeStruct((batch_size, *images.shape[1:]), images.dtype),
        jax.ShapeDtypeStruct((batch_size, *labels.shape[1:]), labels.dtype),
        jax.ShapeDtypeStruct((batch_size,), jnp.bool_),
        None if weights is None else jax.ShapeDtypeStruct((batch_size,), weights.dtype),
    )


def evaluate(
    step_config: StepConfig,
    devices: Devices,
    eval_step: Callable,
    variables: Variables,
    split: Split,
    batch_size: int,
    keep_logits: bool = False,
    after_batch: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Evaluate every example of a split exactly once.

    Args:
        step_config: The model, loss and metrics.
        devices: The devices that `eval_step` was compiled for.
        eval_step: What `devices.compile_eval_step` returned.
        variables: The variables of the model.
        split: The examples.
        batch_size: Images per batch, at most; the result does not depend on it.
        keep_logits: Also return the logits of all examples.
        after_batch: Called after each batch.
    """
    batch_size = -(-min(batch_size, len(split)) // devices.mesh.size) * devices.mesh.size
    fix = f"evaluate fewer than {batch_size} images together: train --eval-batch-size, eval --batch-size"
    with explain_out_of_memory("evaluation", fix):
        sums = devices.replicate(zero_sums(step_config, get_batch_shape(split, batch_size)))
        logits, run_ahead = [], RunAheadLimit()
        for batch in read_eval_batches(split, batch_size, devices.get_local_rows(batch_size)):
            with explain_tracing_errors(step_config.model):
                sums, batch_logits = eval_step(variables, sums, batch)
            if keep_logits:
                logits.append(batch_logits)
            run_ahead.wait(batch_logits)
            after_batch()
        kept = np.concatenate(jax.device_get(logits))[: len(split)] if logits else np.empty((0, 0), np.float32)
        return Evaluation(summarize(step_config, sums), kept)
