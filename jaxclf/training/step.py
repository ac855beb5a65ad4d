"""One training step and one evaluation step, as pure functions; devices.py compiles them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float, Int, Key, PyTree

from jaxclf.augment import (
    CenterCrop,
    LabeledImage,
    Mixer,
    TestTime,
    augment_batch,
    make_views,
    mix_batch,
    transform_images,
)
from jaxclf.errors import require
from jaxclf.metrics import Stats, mean
from jaxclf.models.batch_norm import SUMS, update_statistics
from jaxclf.models.calling import apply_to_train, get_mode, infer_shapes
from jaxclf.models.examples import Examples, use_examples
from jaxclf.optimizers.groups import stop_frozen_gradients
from jaxclf.random import make_key
from jaxclf.training.resident import Resident, gather_batch
from jaxclf.training.state import StepSums, TrainState, are_finite, measure, update_ema
from jaxclf.training.step_config import StepConfig
from jaxclf.types import Array, Batch, Labels, Logits, Variables, promote_float

MakeKey = Callable[[str], Key[jax.Array, ""]]
"""Maps the name of a random stream to its key in a step."""


class Gradients(NamedTuple):
    """What a batch, or a part of it, contributes to a step."""

    params: PyTree
    """Gradients of the summed loss."""
    sums: StepSums
    batch_sums: Variables
    """Sums that the statistics of batch normalization are updated from."""
    model_state: PyTree


def train_step(step_config: StepConfig, state: TrainState, batch: Batch, axis: str | None = None) -> TrainState:
    """Compute one optimizer update from one batch.

    Pure, and the same under jit and, with its `axis`, under pmap. Gradients are those of the summed loss, divided once
    by the number of rows that are not padding: so parts, devices and padding do not change the update.

    Args:
        step_config: What the step does; static.
        state: The state before the step.
        batch: Images [b, h, w, c], labels [b] or [b, classes], mask [b].
        axis: Name of the mapped device axis under pmap.

    Returns:
        The state after the step.
    """
    rows = batch.mask.shape[0]
    positions = jnp.arange(rows) + (jax.lax.axis_index(axis) * rows if axis else 0)

    def make_step_key(stream: str) -> Key[jax.Array, ""]:
        return jax.random.fold_in(make_key(step_config.seed, stream), state.step)

    images = augment_batch(step_config.augment, make_step_key("augment"), positions, batch.images)
    batch = batch._replace(images=images)
    if step_config.mixup is not None:
        batch = _mix(step_config, step_config.mixup, make_step_key("mixup"), batch, positions, axis)
    frozen = step_config.batch_statistics == "frozen"
    examples = Examples(positions, batch.mask, rows if axis else None, "running" if frozen else "mode")
    gradients, sums, batch_sums, model_state = _accumulate(step_config, state, make_step_key, batch, examples)
    if axis:
        gradients, sums, batch_sums = jax.lax.psum((gradients, sums, batch_sums), axis)
        model_state = jax.lax.pmean(model_state, axis)
    model_state = update_statistics(model_state, batch_sums)
    count = sums.loss["count"]
    sums = replace(sums, gradient_norm=_compute_gradient_norm(step_config, state.step, gradients, count))
    gradients = jax.tree.map(lambda g: g / count, gradients)
    updated = _update(step_config, state, gradients).replace(
        model_state=model_state,
        epoch_stats=state.epoch_stats + sums,
        interval_stats=state.interval_stats + sums,
    )
    if not step_config.skip_non_finite:
        return updated
    finite = are_finite((gradients, sums.loss, model_state))
    # A branch would make the device wait for the host; `where` takes every array from before or after.
    return jax.tree.map(partial(jnp.where, finite), updated, state.replace(step=state.step + 1))


def train_steps(
    step_config: StepConfig,
    state: TrainState,
    batches: Batch,
    resident: Resident | None,
    count: Int[Array, ""] | int,
    axis: str | None = None,
) -> TrainState:
    """Compute an update from each of the first `count` of batches [steps, b, ...], in one loop on the device.

    Args:
        step_config: What a step does; static.
        state: The state before the steps.
        batches: The batches, of images or of indices of resident ones.
        resident: The images on the device, or None.
        count: How many of the batches to train on. If it is an int, the length of the loop is known to the compiler.
        axis: Name of the mapped device axis under pmap.

    Returns:
        The state after the steps.
    """

    def step(i, state):
        batch = jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, i, keepdims=False), batches)
        return train_step(step_config, state, batch if resident is None else gather_batch(resident, batch), axis)

    return step(0, state) if batches.mask.shape[0] == 1 else jax.lax.fori_loop(0, count, step, state)


def _compute_gradient_norm(
    step_config: StepConfig, step: Int[Array, ""], gradient_sums: PyTree, count: Int[Array, ""]
) -> Stats:
    """Compute the global L2 norm of the mean gradient in some steps."""
    taken = step % step_config.norm_every == 0
    if jax.default_backend() == "cpu":  # it takes a quarter of a wide network's step
        norm = jax.lax.cond(taken, optax.tree.norm, lambda _: jnp.zeros(()), gradient_sums)
    else:  # an accelerator would wait for the host, which reads the condition
        norm = optax.tree.norm(gradient_sums)
    return mean(norm[None] / count, taken[None])


def _mix(
    step_config: StepConfig,
    mixup: Mixer,
    key: Key[jax.Array, ""],
    batch: Batch,
    positions: Int[Array, " b"],
    axis: str | None,
) -> Batch:
    """Mix every example with the next one of the whole batch, which may be on another device."""
    logits, _ = infer_shapes(step_config.model, batch.images)
    labels = batch.labels if batch.labels.ndim == 2 else jax.nn.one_hot(batch.labels, logits.shape[-1])

    def get_next(rows):
        whole = jax.lax.all_gather(rows, axis, tiled=True) if axis else rows
        return whole[(positions + 1) % whole.shape[0]]

    examples = LabeledImage(batch.images, labels)
    images, labels = mix_batch(mixup, key, positions, examples, jax.tree.map(get_next, examples))
    return batch._replace(images=images, labels=labels)


def _update(step_config: StepConfig, state: TrainState, gradients: PyTree) -> TrainState:
    """Apply the optimizer and, if there is one, update the EMA of the parameters."""
    gradients = jax.tree.map(lambda gradient, param: gradient.astype(param.dtype), gradients, state.params)
    updates, optimizer_state = step_config.transformation.update(gradients, state.optimizer_state, state.params)
    params = optax.apply_updates(state.params, updates)
    step, decay = state.step + 1, step_config.ema_decay
    ema = update_ema(params, state.ema, decay, step) if decay else state.ema
    return state.replace(step=step, params=params, optimizer_state=optimizer_state, ema=ema)


def _accumulate(
    step_config: StepConfig, state: TrainState, make_step_key: MakeKey, batch: Batch, examples: Examples
) -> Gradients:
    """Compute the gradients of a batch in equal parts, one after the other."""
    parts = step_config.gradient_accumulation
    if parts == 1:
        return _differentiate(step_config, state.params, state.model_state, make_step_key, batch, examples)
    group = getattr(step_config.model, "batch_norm_group", None) or 1
    rows = len(batch.mask)
    require(
        rows % (parts * group) == 0,
        f"{rows} examples do not divide into {parts} gradient_accumulation parts of groups of batch_norm_group={group}",
    )

    def split(x):
        # Every parts-th group, so that each device has rows of every part and none have to move.
        return x.reshape(-1, parts, group, *x.shape[1:]).swapaxes(0, 1).reshape(parts, -1, *x.shape[1:])

    def compute_part(model_state: PyTree, part) -> Gradients:
        batch, positions = part
        examples_of_part = replace(examples, positions=positions, mask=batch.mask, consecutive=group)
        return _differentiate(step_config, state.params, model_state, make_step_key, batch, examples_of_part)

    def add_part(total: Gradients, part) -> tuple[Gradients, None]:
        more = compute_part(total.model_state, part)
        added = jax.tree.map(jnp.add, total._replace(model_state=None), more._replace(model_state=None))
        return added._replace(model_state=more.model_state), None

    all_parts = jax.tree.map(split, (batch, examples.positions))
    first = jax.tree.map(lambda x: x[0], all_parts)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(compute_part, state.model_state, first))
    return jax.lax.scan(add_part, zeros._replace(model_state=state.model_state), all_parts)[0]


def _differentiate(
    step_config: StepConfig,
    params: PyTree,
    model_state: PyTree,
    make_step_key: MakeKey,
    batch: Batch,
    examples: Examples,
) -> Gradients:
    """Compute the gradients of the summed, weighted loss of a batch."""

    def loss_sum(params):
        with use_examples(examples):
            variables = {"params": stop_frozen_gradients(step_config.freeze, params), **model_state}
            logits, new_state = apply_to_train(
                step_config.model, variables, batch.images, make_step_key, [*model_state, SUMS]
            )
        logits = promote_float(logits)
        sums = measure(step_config, logits, batch)
        if not step_config.class_weights and batch.weights is None:
            return sums.loss["sum"], (sums, new_state)
        # Weights change the gradient only: the reported loss is that of the examples, so curves compare.
        weights = _weigh_examples(step_config, batch) * batch.mask
        return jnp.sum(weights * step_config.loss(logits, batch.labels)), (sums, new_state)

    gradients, (sums, new_state) = jax.grad(loss_sum, has_aux=True)(params)
    batch_sums = new_state.pop(SUMS, {})
    return Gradients(jax.tree.map(promote_float, gradients), sums, batch_sums, new_state)


def _weigh_examples(step_config: StepConfig, batch: Batch) -> Float[Array, " b"]:
    """Return the loss weight of each example: its own times that of its class, or the mean over its classes."""
    weights = jnp.ones(batch.mask.shape) if batch.weights is None else jnp.asarray(batch.weights)
    return weights * weigh_classes(step_config, batch.labels) if step_config.class_weights else weights


def weigh_classes(step_config: StepConfig, labels: Labels) -> Float[Array, " b"]:
    """Return the weight of each example's class; for label probabilities [b, classes], their weighted mean."""
    weights = jnp.asarray(step_config.class_weights, jnp.float32)
    return weights[labels] if jnp.ndim(labels) == 1 else jnp.asarray(labels) @ weights


def compute_logits(
    model: nn.Module,
    variables: Variables,
    images: Array,
    transform: CenterCrop | None = None,
    tta: TestTime | None = None,
) -> Logits:
    """Return the logits [b, classes] of images of the dataset, as in evaluation; their mean over the views of `tta`."""

    def call_model(images: Array) -> Logits:
        return promote_float(cast(Logits, model.apply(variables, images, **get_mode(model, False))))

    images = transform_images(transform, images)
    if tta is None:
        return call_model(images)
    first, *others = (weight * call_model(view) for weight, view in make_views(tta, images))
    return sum(others, start=first)


def eval_step(step_config: StepConfig, variables: Variables, sums: StepSums, batch: Batch) -> tuple[StepSums, Logits]:
    """Add the sums of a batch to earlier ones; return them and the logits [b, classes]."""
    transform, tta = step_config.evaluation_transform, step_config.tta
    logits = compute_logits(step_config.model, variables, batch.images, transform, tta)
    return sums + measure(step_config, logits, batch), logits


def sum_statistics(step_config: StepConfig, variables: Variables, batch: Batch) -> Variables:
    """Return the sums of batch normalization over a batch, whose examples are normalized with its own statistics."""
    examples = Examples(jnp.arange(len(batch.mask)), batch.mask, statistics="batch")
    with use_examples(examples):
        model, images = step_config.model, transform_images(step_config.evaluation_transform, batch.images)
        _, changed = model.apply(variables, images, **get_mode(model, False), mutable=[SUMS])
    return cast(Variables, changed).get(SUMS, {})
