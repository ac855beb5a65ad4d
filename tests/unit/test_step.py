"""One step is the same on one device and on many, in one part and in several, padded or not."""

import re
from dataclasses import replace
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support.steps import BATCH, STEP_CONFIG, assert_same, fit, make_devices, read_batches

from jaxclf.augment import LabeledImage, Mixup, mix_batch
from jaxclf.errors import UserError
from jaxclf.models import Mlp
from jaxclf.optimizers import Sgd
from jaxclf.random import make_key
from jaxclf.training.pipeline import read_train_batches
from jaxclf.training.state import create_state, get_variables, measure, summarize, zero_sums
from jaxclf.training.step import compute_logits, eval_step, train_step
from jaxclf.types import Batch, promote_float

MLP = replace(STEP_CONFIG, augment=(), model=Mlp(features=(5,), classes=10))


class Normalized(nn.Module):
    """A model with batch statistics."""

    @nn.compact
    def __call__(self, images, train=False):
        x = images.reshape(images.shape[0], -1) / 255.0
        return nn.Dense(10)(nn.BatchNorm(use_running_average=not train)(x))


@pytest.fixture(scope="module")
def batches(digits):
    return read_batches(digits)


@pytest.fixture(scope="module")
def alone(batches):
    return fit(STEP_CONFIG, batches)


def test_four_devices_give_the_parameters_of_one(batches, alone):
    many = fit(STEP_CONFIG, batches, make_devices(4))
    assert_same(many.params, alone.params)
    assert_same(summarize(STEP_CONFIG, many.epoch_stats), summarize(STEP_CONFIG, alone.epoch_stats))


def test_accumulated_gradients_are_those_of_the_whole_batch(batches, alone):
    accumulated = fit(replace(STEP_CONFIG, gradient_accumulation=4), batches)
    assert int(accumulated.step) == len(batches)  # optimiser updates, not parts
    assert_same(accumulated.params, alone.params)


def test_gradients_of_frozen_parameters_are_not_computed(batches):
    def measure_step(freeze):
        optimizer = Sgd(learning_rate=0.1, freeze=freeze)
        transformation = optimizer.build(len(batches), model=MLP.model)
        step_config = replace(MLP, model=Mlp(features=(512,), classes=10), freeze=freeze, transformation=transformation)
        state = create_state(step_config, batches[0])
        step = jax.jit(partial(train_step, step_config))
        return step.lower(state, batches[0]).compile().cost_analysis()["flops"], step(state, batches[0])

    (flops, trained), (fewer_flops, state) = measure_step(()), measure_step(("dense1",))
    assert fewer_flops < 0.6 * flops  # the forward pass of dense1 is left, its weight gradient is not
    assert_same(state.params["logits"], trained.params["logits"])
    changes = jax.tree.map(lambda a, b: (a - b) / 0.1, trained.params, state.params)
    rest = np.sqrt(summarize(MLP, trained.epoch_stats)["gradient_norm"] ** 2 - optax.tree.norm(changes) ** 2)
    assert summarize(MLP, state.epoch_stats)["gradient_norm"] == pytest.approx(float(rest), rel=1e-4)


def test_training_is_repeatable_to_the_bit(batches, alone):
    jax.tree.map(np.testing.assert_array_equal, fit(STEP_CONFIG, batches), alone)


def test_another_seed_is_another_run(batches, alone):
    other = fit(replace(STEP_CONFIG, seed=1), batches)
    assert np.abs(other.params["logits"]["kernel"] - alone.params["logits"]["kernel"]).max() > 0.01


def test_what_padding_holds_does_not_matter(batches, alone):
    def spoil(batch):
        images = np.where(batch.mask[:, None, None, None], batch.images, 77).astype(np.uint8)
        return Batch(images, np.where(batch.mask, batch.labels, 3), batch.mask)

    assert not all(batch.mask.all() for batch in batches)
    jax.tree.map(np.testing.assert_array_equal, fit(STEP_CONFIG, [spoil(batch) for batch in batches]), alone)


def test_a_padded_batch_divides_by_its_real_count(batches):
    batch = jax.tree.map(lambda part: part[:8], batches[0])
    padded = Batch(
        np.concatenate([batch.images, batch.images]),
        np.concatenate([batch.labels, batch.labels]),
        np.arange(16) < 8,
    )
    assert_same(fit(MLP, [batch]).params, fit(MLP, [padded]).params, atol=1e-7)


def test_the_step_is_plain_gradient_descent_written_out(batches):
    model = Mlp(features=(6,), classes=10)
    step_config = replace(STEP_CONFIG, model=model, augment=(), transformation=Sgd(learning_rate=0.5).build(1))
    state = create_state(step_config, batches[0])

    def mean_loss(params):
        logits = model.apply({"params": params}, jnp.asarray(batches[0].images))
        return optax.softmax_cross_entropy_with_integer_labels(logits, batches[0].labels).mean()

    gradients = jax.grad(mean_loss)(state.params)
    expected = jax.tree.map(lambda p, g: p - 0.5 * g, state.params, gradients)
    after = jax.jit(partial(train_step, step_config))(state, batches[0])
    assert_same(after.params, expected, atol=1e-6)
    values = summarize(step_config, after.epoch_stats)
    assert values["loss"] == pytest.approx(float(mean_loss(state.params)), rel=1e-5)
    assert values["gradient_norm"] == pytest.approx(float(optax.tree.norm(gradients)), rel=1e-5)


def test_the_running_mean_has_a_short_memory_at_first(batches):
    step_config = replace(MLP, ema_decay=0.5)
    state, jitted = create_state(step_config, batches[0]), jax.jit(partial(train_step, step_config))
    ema = state.ema["logits"]["kernel"]
    for step, batch in enumerate(batches[:12], start=1):
        state = jitted(state, batch)
        decay = min(0.5, (1 + step) / (10 + step))
        ema = decay * ema + (1 - decay) * state.params["logits"]["kernel"]
    np.testing.assert_allclose(state.ema["logits"]["kernel"], ema, atol=1e-6)
    assert get_variables(state)["params"] is state.ema
    assert get_variables(state, "raw")["params"] is state.params


def test_bfloat16_computes_but_keeps_float32_state(batches):
    step_config = replace(STEP_CONFIG, model=STEP_CONFIG.model.clone(dtype="bfloat16"), ema_decay=0.9)
    state = fit(step_config, batches)
    floats = [leaf for leaf in jax.tree.leaves(state) if np.issubdtype(leaf.dtype, np.floating)]
    assert {leaf.dtype for leaf in floats} == {np.dtype("float32")}
    jaxpr = str(jax.make_jaxpr(partial(train_step, step_config))(create_state(step_config, batches[0]), batches[0]))
    assert re.search(r"bf16\[.*conv_general_dilated", jaxpr)


class Half(nn.Module):
    """A linear classifier in one 16-bit type throughout."""

    dtype: str

    @nn.compact
    def __call__(self, images, train=False):
        x = images.reshape(images.shape[0], -1).astype(self.dtype) / 255
        return nn.Dense(10, dtype=self.dtype, param_dtype=self.dtype)(x)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sums_are_float32_whatever_the_types_of_the_network_are(dtype, batches):
    """Cases F5 and F10."""
    step_config = replace(MLP, model=Half(dtype), ema_decay=0.9, gradient_accumulation=2)
    state = fit(step_config, batches)
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {np.dtype(jnp.dtype(dtype))}
    sums = (state.epoch_stats, state.interval_stats, state.ema)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(sums)} == {"float32", "int32"}
    variables = get_variables(state)
    assert variables["params"]["Dense_0"]["bias"].dtype == dtype
    # Added over batches of one, the losses are those of the logits in float64.
    totals, expected = zero_sums(step_config, batches[0]), 0.0
    for image, label in zip(batches[0].images, batches[0].labels, strict=True):
        one = Batch(image[None], label[None], np.ones(1, bool))
        totals, logits = eval_step(step_config, variables, totals, one)
        exact = np.asarray(logits[0], np.float64)
        expected += np.log(np.exp(exact).sum()) - exact[label]
    np.testing.assert_allclose(totals.loss["sum"], expected, rtol=1e-6)


def test_batch_statistics_move_in_training_and_stay_in_evaluation(batches):
    step_config = replace(STEP_CONFIG, model=Normalized(), augment=())
    before, after = create_state(step_config, batches[0]), fit(step_config, batches)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), before.model_state, after.model_state)
    assert max(jax.tree.leaves(moved)) > 0.01
    assert_same(fit(step_config, batches, make_devices(4)).params, after.params, atol=1e-4)
    # In evaluation the logits of an image depend on no other image: they are those of the statistics of training.
    images, variables = batches[0].images, get_variables(after)
    logits = compute_logits(step_config.model, variables, images)
    np.testing.assert_allclose(logits[:3], compute_logits(step_config.model, variables, images[:3]), rtol=1e-5)
    untrained = variables | {"batch_stats": before.model_state["batch_stats"]}
    assert np.abs(logits - compute_logits(step_config.model, untrained, images)).max() > 0.1


def test_a_batch_that_does_not_divide_names_one_that_does():
    with pytest.raises(UserError, match=r"batch_size=30 .* 4 devices.*try 28 or 32"):
        make_devices(4).check_batch_size(30)
    make_devices(4).check_batch_size(32, gradient_accumulation=2)


def test_mixup_of_equal_examples_changes_nothing(batches):
    batch = Batch(np.repeat(batches[0].images[:1], BATCH, 0), np.repeat(batches[0].labels[:1], BATCH), batches[0].mask)
    assert_same(fit(replace(MLP, mixup=Mixup()), [batch]).params, fit(MLP, [batch]).params, atol=1e-6)


def test_mixup_is_the_step_on_examples_mixed_by_hand(batches):
    batch = batches[0]
    labels = np.eye(10, dtype=np.float32)[batch.labels]
    key = jax.random.fold_in(make_key(0, "mixup"), 0)
    mine = LabeledImage(batch.images, labels)
    following = jax.tree.map(lambda rows: np.roll(rows, -1, 0), mine)
    images, labels = mix_batch(Mixup(2.0), key, jnp.arange(BATCH), mine, following)
    by_hand = fit(MLP, [Batch(np.asarray(images), np.asarray(labels), batch.mask)])
    assert_same(fit(replace(MLP, mixup=Mixup(2.0)), [batch]).params, by_hand.params, atol=1e-6)


def test_equal_class_weights_change_nothing_and_others_weigh_the_gradient(batches):
    assert_same(fit(replace(MLP, class_weights=(1.0,) * 10), batches[:3]).params, fit(MLP, batches[:3]).params)
    # A weight of two for one class is each of its examples seen twice; SGD's first step shows the gradient.
    batch = batches[0]
    label = int(batch.labels[0])
    weighted = fit(replace(MLP, class_weights=tuple(2.0 if c == label else 1.0 for c in range(10))), [batch])
    twice = np.concatenate([np.arange(BATCH), np.flatnonzero(batch.labels == label)])
    rows = Batch(*(part[np.resize(twice, 2 * BATCH)] for part in batch[:2]), np.arange(2 * BATCH) < len(twice))
    start = MLP.model.init(make_key(0, "init"), batch.images)["params"]
    moved = jax.tree.map(lambda a, b: (a - b) * BATCH, weighted.params, start)
    expected = jax.tree.map(lambda a, b: (a - b) * len(twice), fit(MLP, [rows]).params, start)
    assert_same(moved, expected, atol=1e-4)
    # The loss that is reported stays that of the examples.
    assert_same(weighted.epoch_stats.loss, fit(MLP, [batch]).epoch_stats.loss)


def test_the_norm_of_every_third_gradient_is_that_of_a_run_that_takes_all(batches):
    """Steps 0 and 3 of 4."""

    def norms(step_config):
        state, sums = create_state(step_config, batches[0]), []
        step = jax.jit(partial(train_step, step_config))
        for batch in (batches * 4)[:4]:
            before = state.interval_stats.gradient_norm
            state = step(state, batch)
            after = state.interval_stats.gradient_norm
            sums.append((float(after["sum"] - before["sum"]), int(after["count"] - before["count"])))
        return sums

    every, third = norms(MLP), norms(replace(MLP, norm_every=3))
    assert [count for _, count in every] == [1, 1, 1, 1]
    assert [count for _, count in third] == [1, 0, 0, 1]
    np.testing.assert_allclose([third[0][0], third[3][0]], [every[0][0], every[3][0]], rtol=1e-5)
    assert third[1][0] == third[2][0] == 0


def test_a_sample_weight_is_how_often_an_example_counts(batches):
    batch, zeros = batches[0], np.zeros(BATCH, np.float32)
    ones = fit(MLP, [batch._replace(weights=zeros + 1)])
    assert_same(ones.params, fit(MLP, [batch]).params, atol=1e-6)
    # Weights of two and zero are examples seen twice and never; the gradient is still divided by all of them.
    half = np.arange(BATCH) < BATCH // 2
    twice = fit(MLP, [batch._replace(weights=np.where(half, 2, 0).astype(np.float32))])
    rows = np.flatnonzero(half).repeat(2)
    assert_same(twice.params, fit(MLP, [Batch(batch.images[rows], batch.labels[rows], batch.mask)]).params, atol=1e-6)
    # The loss that is reported stays that of the examples.
    assert_same(twice.epoch_stats.loss, ones.epoch_stats.loss)


def test_the_pipeline_brings_the_weight_of_each_image(digits):
    weights = np.arange(len(digits.train), dtype=np.float32)
    split = replace(digits.train, sample_weight=weights, labels=np.arange(203, dtype=np.int32) % 10)
    images = {image.tobytes(): weight for image, weight in zip(split.images, weights, strict=True)}
    options = {"batch_size": BATCH, "remainder": "drop", "seed": 0, "start": 0, "stop": 6}
    for batch in read_train_batches(split, **options):
        assert [images[image.tobytes()] for image in batch.images] == batch.weights.tolist()
    for batches in read_train_batches(split, **options, together=3):
        assert batches.weights.shape == (3, BATCH)


def test_sums_are_float64_where_x64_is_enabled():
    with jax.enable_x64(True):
        for dtype in (jnp.bfloat16, jnp.float16, jnp.float32, jnp.float64):
            logits = jnp.ones((3, 10), dtype)
            assert promote_float(logits).dtype == jnp.float64
        batch = Batch(np.zeros((3, 2, 2, 1), np.uint8), np.zeros(3, np.int32), np.ones(3, bool))
        sums = measure(STEP_CONFIG, promote_float(jnp.ones((3, 10), jnp.bfloat16)), batch)
        floats = [leaf for leaf in jax.tree.leaves(sums) if jnp.issubdtype(leaf.dtype, jnp.floating)]
        assert {leaf.dtype.name for leaf in floats} == {"float64"}
    assert promote_float(jnp.ones(3, jnp.bfloat16)).dtype == jnp.float32
