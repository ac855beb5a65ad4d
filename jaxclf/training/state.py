"""The state of training, and the sums that metrics are computed from."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, Key, PyTree

from jaxclf.augment import compute_input_shape, transform_images
from jaxclf.config_io import find_differences
from jaxclf.errors import UserError, require
from jaxclf.metrics import divide, mean
from jaxclf.models.calling import initialize_model
from jaxclf.random import make_key
from jaxclf.training.checkpoint import Checkpoints, Saved, describe_arrays
from jaxclf.training.step_config import StepConfig
from jaxclf.types import Batch, Logits, Variables, promote_float


@jax.tree_util.register_pytree_with_keys_class
@dataclass(frozen=True)
class StepSums:
    """Sums over the examples of some steps. They are added over batches, parts and devices, and divided once.

    As a pytree it has the keys of a dict without the fields that are None, as checkpoints of version 0.1.0 have.
    """

    loss: PyTree
    """`sum` and `count` of the loss; the count is the number of examples without padding."""
    metrics: tuple[PyTree, ...]
    """The sums of each metric of the config."""
    gradient_norm: PyTree = None
    """`sum` and `count` of the gradient norm, of the steps in which it was computed; None in evaluation."""

    @property
    def images(self) -> int:
        """Number of examples."""
        return int(self.loss["count"])

    def tree_flatten_with_keys(self):
        """Flatten for JAX."""
        names = ("gradient_norm", "loss", "metrics") if self.gradient_norm is not None else ("loss", "metrics")
        return [(jax.tree_util.DictKey(name), getattr(self, name)) for name in names], names

    @classmethod
    def tree_unflatten(cls, names, children) -> StepSums:
        """Unflatten for JAX."""
        return cls(**dict(zip(names, children, strict=True)))

    def __add__(self, other: StepSums) -> StepSums:
        return jax.tree.map(jnp.add, self, other)


@jax.tree_util.register_pytree_with_keys_class
@dataclass(frozen=True)
class TrainState:
    """Everything that training changes, as arrays. Fields are trees: JAX also builds it from shapes and shardings.

    As a pytree it has no `precise` if that is None, as checkpoints of version 0.1.0 have.
    """

    step: PyTree
    """Optimizer updates done, int32."""
    params: PyTree
    model_state: PyTree
    """Other collections of the model, such as `batch_stats`."""
    optimizer_state: PyTree
    ema: PyTree
    """Exponential moving average of the parameters, or None."""
    epoch_stats: PyTree
    """`StepSums` since the start of the epoch."""
    interval_stats: PyTree
    """`StepSums` since the last log line."""
    precise: PyTree = None
    """`batch_stats` of the evaluated weights at the step `step`, computed after an epoch; None: running ones serve."""

    def replace(self, **changes: PyTree) -> TrainState:
        """Return a state with other values of some fields."""
        return replace(self, **changes)

    def tree_flatten_with_keys(self):
        """Flatten for JAX."""
        names = [field.name for field in fields(self) if field.name != "precise" or self.precise is not None]
        return [(jax.tree_util.GetAttrKey(name), getattr(self, name)) for name in names], tuple(names)

    @classmethod
    def tree_unflatten(cls, names, children) -> TrainState:
        """Unflatten for JAX."""
        return cls(**dict(zip(names, children, strict=True)))


def create_state(step_config: StepConfig, batch: Batch, variables: Variables | None = None) -> TrainState:
    """Create the state at step 0.

    Args:
        step_config: What a step does.
        batch: Arrays or `jax.ShapeDtypeStruct`s shaped like every batch.
        variables: The initial variables of the model; None: random ones.
    """
    if variables is None:
        shape = compute_input_shape(step_config.evaluation_transform, batch.images.shape[1:])
        images = jnp.zeros((1, *shape), batch.images.dtype)
        _, variables = initialize_model(step_config.model, make_key(step_config.seed, "init"), images)
    params, model_state = variables["params"], {name: variables[name] for name in variables if name != "params"}
    zeros = replace(zero_sums(step_config, batch), gradient_norm=mean(jnp.zeros(1), jnp.zeros(1, bool)))
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        model_state=model_state,
        optimizer_state=step_config.transformation.init(params),
        # In float32; a copy, because both are donated.
        ema=jax.tree.map(lambda x: promote_float(jnp.copy(x)), params) if step_config.ema_decay else None,
        epoch_stats=zeros,
        interval_stats=jax.tree.map(jnp.copy, zeros),
        precise=_start_precise(step_config, model_state),
    )


def check_variables(step_config: StepConfig, batch: Batch, variables: Variables) -> None:
    """Raise UserError if the names, shapes or dtypes of variables are not those of the model."""
    state = jax.eval_shape(partial(create_state, step_config, batch))
    expected, given = (describe_arrays(each) for each in (get_variables(state, "raw"), variables))
    if changed := find_differences(expected, given):
        raise UserError("the initial variables do not fit the model; expected -> given:", changed)


def _start_precise(step_config: StepConfig, model_state: Variables) -> PyTree:
    """Return placeholders of the precise statistics, or None if the model or the config has none."""
    if step_config.batch_statistics != "precise" or "batch_stats" not in model_state:
        return None
    return {"step": jnp.full((), -1, jnp.int32), "batch_stats": jax.tree.map(jnp.copy, model_state["batch_stats"])}


def restore_state(checkpoints: Checkpoints, saved: Saved, like: TrainState) -> TrainState:
    """Restore the state of a checkpoint with the structure, shapes, dtypes and shardings of `like`.

    Checkpoints of earlier versions have no precise statistics: the running ones are used until they are computed.
    """
    if like.precise is None or any(path.startswith(".precise") for path in saved.tree):
        return checkpoints.restore(saved, like)
    state = checkpoints.restore(saved, like.replace(precise=None))
    return state if isinstance(like.step, jax.ShapeDtypeStruct) else state.replace(precise=like.precise)


def get_variables(state: TrainState, weights: Literal["ema", "raw"] = "ema") -> Variables:
    """Return the variables to evaluate the model with: the EMA of the parameters where there is one."""
    if weights == "raw" and state.ema is not None:
        return {"params": state.params, **state.model_state}
    params = state.params if state.ema is None else _match_dtypes(state.ema, state.params)
    model_state = state.model_state
    if state.precise is not None and int(state.precise["step"]) == int(state.step):
        model_state = model_state | {"batch_stats": state.precise["batch_stats"]}
    return {"params": params, **model_state}


def _match_dtypes(tree: PyTree, like: PyTree) -> PyTree:
    """Return a tree with the dtypes of another one: the tree itself if it has them."""
    if all(x.dtype == y.dtype for x, y in zip(jax.tree.leaves(tree), jax.tree.leaves(like), strict=True)):
        return tree
    return jax.tree.map(lambda x, y: x.astype(y.dtype), tree, like)


def measure(step_config: StepConfig, logits: Logits, batch: Batch) -> StepSums:
    """Return the sums of one batch."""
    metrics = tuple(metric.stats(logits, batch.labels, batch.mask) for metric in step_config.metrics)
    losses = step_config.loss(logits, batch.labels)
    require(
        losses.shape == batch.mask.shape,
        f"{type(step_config.loss).__name__} returns {list(losses.shape)} for {len(batch.mask)} examples; expected the "
        "loss of each, without the mean over them",
    )
    return StepSums(mean(losses, batch.mask), metrics)


def zero_sums(step_config: StepConfig, batch: Batch) -> StepSums:
    """Return zero-initialized sums."""

    def forward(key: Key[Array, ""], batch: Batch) -> StepSums:
        images = transform_images(step_config.evaluation_transform, batch.images)
        logits, _ = initialize_model(step_config.model, key, images)
        return measure(step_config, promote_float(logits), batch)

    shapes = jax.eval_shape(forward, make_key(0, "init"), batch)
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)


def summarize(step_config: StepConfig, sums: StepSums) -> dict[str, Any]:
    """Divide sums: return `loss`, the values of the metrics and, in training, `gradient_norm` if it was computed."""
    sums = jax.device_get(sums)
    values: dict[str, Any] = {"loss": divide(sums.loss)}
    for metric, metric_sums in zip(step_config.metrics, sums.metrics, strict=True):
        values |= metric.compute(metric_sums)
    if sums.gradient_norm is not None and sums.gradient_norm["count"]:
        values["gradient_norm"] = divide(sums.gradient_norm)
    return values


def are_finite(tree: PyTree) -> jax.Array:
    """Return whether all numbers of a tree are finite, as a boolean scalar."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))


def update_ema(params: PyTree, ema: PyTree, decay: float, step: Int[Array, ""]) -> PyTree:
    """Return the EMA after a step. Its memory is short at first, since the initial weights carry no information."""
    return optax.incremental_update(params, ema, 1 - jnp.minimum(decay, (1 + step) / (10 + step)))
