"""Precise statistics of batch normalization: of training images, with fixed weights.

Y. Wu, J. Johnson, "Rethinking 'Batch' in BatchNorm" (2021), arXiv:2105.07576, section 3.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce

import jax
import jax.numpy as jnp

from jaxclf.config import Config
from jaxclf.errors import require
from jaxclf.models.batch_norm import update_statistics
from jaxclf.training.devices import Devices
from jaxclf.training.pipeline import count_steps_per_epoch, read_train_batches
from jaxclf.training.state import TrainState, get_variables
from jaxclf.training.step import sum_statistics
from jaxclf.training.step_config import StepConfig
from jaxclf.types import Batch, Split, Variables

EXAMPLES = 4_096  # at most, but at least one batch; the paper finds that a thousand are enough


def check_statistics(config: Config, step_config: StepConfig, variables: Variables, batch: Batch) -> None:
    """Raise UserError if the config asks for statistics that the batch normalization of the model does not have.

    Args:
        config: The config of the run.
        step_config: The model.
        variables: Its variables, or their shapes.
        batch: The shapes of a batch.
    """
    if config.batch_statistics in ("precise", "frozen") and "batch_stats" in variables:
        require(
            bool(jax.eval_shape(partial(sum_statistics, step_config), variables, batch)),
            f"batch_statistics={config.batch_statistics} needs jaxclf.models.batch_norm.BatchNorm, and "
            f"{type(config.model).__name__} normalizes batches by another class; use it, or leave batch_statistics out",
        )


def compute_precise_statistics(
    config: Config,
    devices: Devices,
    sum_batch: Callable[[Variables, Batch], Variables],
    split: Split,
    state: TrainState,
) -> TrainState:
    """Return a state with the precise statistics of the weights that are evaluated.

    The batches are the first of the run, without augmentation and dropout. Each is normalized with its own statistics.

    Args:
        config: The config of the run.
        devices: The devices that `sum_batch` was compiled for.
        sum_batch: What `devices.compile_statistics` returned.
        split: The training images.
        state: The state.
    """
    size = config.batch_size
    steps = min(count_steps_per_epoch(len(split), size, config.remainder), max(1, EXAMPLES // size))
    batches = read_train_batches(
        split, batch_size=size, remainder=config.remainder, seed=config.seed, start=0, stop=steps,
        rows=devices.get_local_rows(size),
    )  # fmt: skip
    variables = get_variables(state)
    sums = reduce(partial(jax.tree.map, jnp.add), (sum_batch(variables, batch) for batch in batches))
    statistics = update_statistics(state.model_state, sums, momentum=0.0)["batch_stats"]
    return state.replace(precise={"step": jnp.copy(state.step), "batch_stats": statistics})
