"""The state of training and one step of it, pure: devices.py compiles it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Bool, Float, Int, Key

from jaxclf.augment import Augmentation, Mixup, augment_batch
from jaxclf.losses import Loss
from jaxclf.metrics import Metric, divide, mean
from jaxclf.models.layers import example_positions
from jaxclf.random import stream
from jaxclf.types import Array, Batch, Labels, Logits, Variables

Stats = dict[str, Any]


class TrainState(flax.struct.PyTreeNode):
    """All that training changes, arrays only. Typed Any: JAX also builds it of shapes, shardings and the like."""

    step: Any  # optimiser updates done, int32
    params: Any
    model_state: Any  # other collections of the model, such as `batch_stats`
    optimizer_state: Any
    ema: Any  # running mean of the parameters, or None
    epoch_stats: Any  # sums since the epoch began
    interval_stats: Any  # sums since the last log line


@dataclass(frozen=True)
class Recipe:
    """What a step does, static under jit."""

    model: nn.Module
    loss: Loss
    metrics: tuple[Metric, ...]
    transformation: optax.GradientTransformation
    augment: tuple[Augmentation, ...] = ()
    mixup: Mixup | None = None
    class_weights: tuple[float, ...] = ()  # what a class counts for in the gradient; none: each the same
    ema_decay: float = 0.0  # 0 keeps no running mean
    gradient_accumulation: int = 1  # parts a batch is computed in
    norm_every: int = 1  # steps between two whose gradient's norm is taken
    skip_non_finite: bool = False  # whether an update that is not finite is left out
    seed: int = 0


def create_state(recipe: Recipe, batch: Batch) -> TrainState:
    """The state at step 0 for batches shaped like `batch` (arrays or `jax.ShapeDtypeStruct`s)."""
    images = jnp.zeros((1, *batch.images.shape[1:]), batch.images.dtype)
    variables = recipe.model.init(stream(recipe.seed, "init"), images)
    params = variables.pop("params")
    zeros = zero_stats(recipe, batch) | {"gradient_norm": mean(jnp.zeros(1), jnp.zeros(1, bool))}
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        model_state=variables,
        optimizer_state=recipe.transformation.init(params),
        ema=jax.tree.map(jnp.copy, params) if recipe.ema_decay else None,
        epoch_stats=zeros,
        interval_stats=jax.tree.map(jnp.copy, zeros),
    )


def variables_of(state: TrainState, weights: Literal["ema", "raw"] = "ema") -> Variables:
    """What the model is evaluated with: the running mean of the parameters where there is one."""
    params = state.params if state.ema is None or weights == "raw" else state.ema
    return {"params": params, **state.model_state}


def measure(recipe: Recipe, logits: Logits, batch: Batch) -> Stats:
    """What a batch adds to loss and metrics."""
    metrics = tuple(metric.stats(logits, batch.labels, batch.mask) for metric in recipe.metrics)
    return {"loss": mean(recipe.loss(logits, batch.labels), batch.mask), "metrics": metrics}


def zero_stats(recipe: Recipe, batch: Batch) -> Stats:
    """The stats of no batches."""
    shapes = jax.eval_shape(partial(_forward, recipe), stream(0, "init"), batch)
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)


def _forward(recipe: Recipe, key: Key[jax.Array, ""], batch: Batch) -> Stats:
    logits, _ = recipe.model.init_with_output(key, batch.images)
    return measure(recipe, logits, batch)


def summarize(recipe: Recipe, stats: Stats) -> dict[str, Any]:
    """Named values from added-up stats: `loss`, those of the metrics, and in training `gradient_norm`, where taken."""
    stats = jax.device_get(stats)
    values: dict[str, Any] = {"loss": divide(stats["loss"])}
    for metric, metric_stats in zip(recipe.metrics, stats["metrics"], strict=True):
        values |= metric.compute(metric_stats)
    if "gradient_norm" in stats and stats["gradient_norm"]["count"]:
        values["gradient_norm"] = divide(stats["gradient_norm"])
    return values


def train_step(recipe: Recipe, state: TrainState, batch: Batch, axis: str | None = None) -> TrainState:
    """One optimiser update from one batch: pure, and the same under jit and, with its `axis`, under pmap.

    Gradients are those of the summed loss, divided by the number of rows that are not padding.
    """
    rows = batch.mask.shape[0]
    positions = jnp.arange(rows) + (jax.lax.axis_index(axis) * rows if axis else 0)
    augment_key, mixup_key, dropout_key = (
        jax.random.fold_in(stream(recipe.seed, name), state.step) for name in ("augment", "mixup", "dropout")
    )
    batch = batch._replace(images=augment_batch(recipe.augment, augment_key, positions, batch.images))
    if recipe.mixup is not None:
        batch = _mix(recipe, recipe.mixup, mixup_key, batch, positions, axis)
    gradients, stats, model_state = _accumulate(recipe, state, dropout_key, batch, positions)
    if axis:
        gradients, stats = jax.lax.psum((gradients, stats), axis)
        model_state = jax.lax.pmean(model_state, axis)
    stats["gradient_norm"] = _gradient_norm(recipe, state.step, gradients, stats["loss"]["count"])
    gradients = jax.tree.map(lambda g: g / stats["loss"]["count"], gradients)
    updated = _update(recipe, state, gradients).replace(
        model_state=model_state,
        epoch_stats=add(state.epoch_stats, stats),
        interval_stats=add(state.interval_stats, stats),
    )
    if not recipe.skip_non_finite:
        return updated
    finite = all_finite((gradients, stats["loss"], model_state))
    return jax.tree.map(partial(jnp.where, finite), updated, state.replace(step=state.step + 1))


def train_steps(
    recipe: Recipe, state: TrainState, batches: Batch, count: Int[Array, ""], axis: str | None = None
) -> TrainState:
    """An optimiser update from each of the first `count` of batches [steps, b, ...], in one loop of the device."""

    def step(i, state):
        batch = jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, i, keepdims=False), batches)
        return train_step(recipe, state, batch, axis)

    return step(0, state) if batches.mask.shape[0] == 1 else jax.lax.fori_loop(0, count, step, state)


def _gradient_norm(recipe: Recipe, step: Int[Array, ""], gradient_sums: Any, count: Int[Array, ""]) -> Stats:
    """The global L2 norm of the mean gradient; of some steps, as it takes a quarter of a wide network's step."""
    taken = step % recipe.norm_every == 0
    norm = jax.lax.cond(taken, optax.tree.norm, lambda _: jnp.zeros(()), gradient_sums) / count
    return mean(norm[None], taken[None])


def _mix(
    recipe: Recipe, mixup: Mixup, key: Key[jax.Array, ""], batch: Batch, positions: Int[Array, " b"], axis: str | None
) -> Batch:
    """The batch with every example mixed with the next one of the whole batch, which may be on another device."""
    logits, _ = jax.eval_shape(recipe.model.init_with_output, key, batch.images)
    labels = batch.labels if batch.labels.ndim == 2 else jax.nn.one_hot(batch.labels, logits.shape[-1])

    def of_the_next(rows):
        whole = jax.lax.all_gather(rows, axis, tiled=True) if axis else rows
        return whole[(positions + 1) % whole.shape[0]]

    images, labels = mixup.mix(key, positions, batch.images, labels, of_the_next(batch.images), of_the_next(labels))
    return batch._replace(images=images, labels=labels)


def all_finite(tree: Any) -> Bool[Array, ""]:
    """Whether all numbers of a tree are finite."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))


def add(stats: Stats, more: Stats) -> Stats:
    """The sum of two stats."""
    return jax.tree.map(jnp.add, stats, more)


def _update(recipe: Recipe, state: TrainState, gradients: Any) -> TrainState:
    updates, optimizer_state = recipe.transformation.update(gradients, state.optimizer_state, state.params)
    params = optax.apply_updates(state.params, updates)
    step = state.step + 1
    ema = state.ema
    if recipe.ema_decay:
        # A short memory at first: the initial weights say nothing.
        decay = jnp.minimum(recipe.ema_decay, (1 + step) / (10 + step))
        ema = optax.incremental_update(params, ema, 1 - decay)
    return state.replace(step=step, params=params, optimizer_state=optimizer_state, ema=ema)


def _accumulate(
    recipe: Recipe, state: TrainState, key: Key[jax.Array, ""], batch: Batch, positions: Int[Array, " b"]
) -> tuple[Any, Stats, Any]:
    """Summed gradients, stats and model state of a batch, computed in equal parts one after the other."""
    parts = recipe.gradient_accumulation
    if parts == 1:
        return _gradients(recipe, state.params, state.model_state, key, batch, positions)

    def body(carry, part):
        gradients, stats, model_state = carry
        more = _gradients(recipe, state.params, model_state, key, *part)
        return (add(gradients, more[0]), add(stats, more[1]), more[2]), None

    # Every parts-th row, so that each device has rows of every part and none have to move.
    split = jax.tree.map(lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), (batch, positions))
    zeros = jax.tree.map(jnp.zeros_like, state.params), zero_stats(recipe, batch), state.model_state
    carry, _ = jax.lax.scan(body, zeros, split)
    return carry


def _gradients(
    recipe: Recipe,
    params: Any,
    model_state: Any,
    key: Key[jax.Array, ""],
    batch: Batch,
    positions: Int[Array, " b"],
) -> tuple[Any, Stats, Any]:
    def loss_sum(params):
        with example_positions(positions):
            logits, new_state = recipe.model.apply(
                {"params": params, **model_state},
                batch.images,
                train=True,
                rngs={"dropout": key},
                mutable=list(model_state),
            )
        stats = measure(recipe, logits, batch)
        if not recipe.class_weights:
            return stats["loss"]["sum"], (stats, new_state)
        weights = class_weights_of(recipe, batch.labels) * batch.mask
        return jnp.sum(weights * recipe.loss(logits, batch.labels)), (stats, new_state)

    gradients, (stats, new_state) = jax.grad(loss_sum, has_aux=True)(params)
    return gradients, stats, new_state


def class_weights_of(recipe: Recipe, labels: Labels) -> Float[Array, " b"]:
    """What each example counts for: the weight of its class, or the mean over its classes."""
    weights = jnp.asarray(recipe.class_weights, jnp.float32)
    return weights[labels] if jnp.ndim(labels) == 1 else jnp.asarray(labels) @ weights


def predict(model: nn.Module, variables: Variables, images: Array) -> Logits:
    """Logits [b, classes] of images, as in evaluation."""
    return cast(Logits, model.apply(variables, images))


def eval_step(recipe: Recipe, variables: Variables, stats: Stats, batch: Batch) -> tuple[Stats, Logits]:
    """Stats with those of a batch added, and its logits."""
    logits = predict(recipe.model, variables, batch.images)
    return add(stats, measure(recipe, logits, batch)), logits
