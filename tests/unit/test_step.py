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

from jaxclf.augment import Mixup, Shift
from jaxclf.errors import UserError
from jaxclf.losses import CrossEntropy
from jaxclf.metrics import Accuracy
from jaxclf.models import Cnn, Mlp
from jaxclf.optimizers import Adam, Sgd
from jaxclf.random import make_key
from jaxclf.training.devices import AXIS, Devices
from jaxclf.training.pipeline import read_train_batches
from jaxclf.training.state import create_state, get_variables, summarize
from jaxclf.training.step import compute_logits, train_step
from jaxclf.training.step_config import StepConfig
from jaxclf.types import Batch

STEPS, BATCH = 20, 16
MODEL = Cnn(features=(3, 4), dense=(8,), classes=10, dropout=0.3)
RECIPE = StepConfig(
    MODEL,
    CrossEntropy(),
    (Accuracy(),),
    Sgd(learning_rate=0.1, momentum=0.9).build(STEPS),
    augment=(Shift(2),),
)


class Normalized(nn.Module):
    """A model with batch statistics."""

    @nn.compact
    def __call__(self, images, train=False):
        x = images.reshape(images.shape[0], -1) / 255.0
        return nn.Dense(10)(nn.BatchNorm(use_running_average=not train)(x))


def devices(count, parallel="jit"):
    return Devices(
        jax.make_mesh((count,), (AXIS,), Devices.all().mesh.axis_types, devices=jax.devices()[:count]),
        parallel,
    )


@pytest.fixture(scope="module")
def batches(digits):
    # 203 images: the last of 13 batches is padded.
    return list(read_train_batches(digits.train, batch_size=BATCH, remainder="pad", seed=0, start=0, stop=STEPS))


def fit(step_config, batches, on=None):
    on = on or devices(1)
    state = on.create_state(step_config, batches[0])
    step = on.compile_train_step(step_config, state, batches[0])
    for batch in batches:
        state = step(state, jax.tree.map(lambda x: x[None], batch), 1)
    return jax.device_get(state)


def assert_same(a, b, atol=1e-5):
    jax.tree.map(partial(np.testing.assert_allclose, atol=atol, rtol=0), a, b)


@pytest.fixture(scope="module")
def alone(batches):
    return fit(RECIPE, batches)


@pytest.mark.parametrize("parallel", ["jit", "pmap"])
def test_four_devices_give_the_parameters_of_one(parallel, batches, alone):
    many = fit(RECIPE, batches, devices(4, parallel))
    assert_same(many.params, alone.params)
    assert_same(summarize(RECIPE, many.epoch_stats), summarize(RECIPE, alone.epoch_stats))


@pytest.mark.parametrize("parallel", ["jit", "pmap"])
def test_four_devices_give_adam_and_the_running_mean_of_one(parallel, batches):
    step_config = replace(RECIPE, transformation=Adam(learning_rate=1e-3).build(STEPS), ema_decay=0.9)
    many, one = fit(step_config, batches, devices(4, parallel)), fit(step_config, batches)
    assert_same((many.params, many.ema), (one.params, one.ema))


@pytest.mark.parametrize("parts", [2, 4])
def test_accumulated_gradients_are_those_of_the_whole_batch(parts, batches, alone):
    accumulated = fit(replace(RECIPE, gradient_accumulation=parts), batches)
    assert int(accumulated.step) == STEPS  # optimiser updates, not parts
    assert_same(accumulated.params, alone.params)


def test_accumulation_on_several_devices(batches, alone):
    assert_same(fit(replace(RECIPE, gradient_accumulation=2), batches, devices(4, "pmap")).params, alone.params)


def test_training_is_repeatable_to_the_bit(batches, alone):
    jax.tree.map(np.testing.assert_array_equal, fit(RECIPE, batches), alone)


def test_another_seed_is_another_run(batches, alone):
    other = fit(replace(RECIPE, seed=1), batches)
    assert np.abs(other.params["logits"]["kernel"] - alone.params["logits"]["kernel"]).max() > 0.01


def test_what_padding_holds_does_not_matter(batches, alone):
    def spoil(batch):
        images = np.where(batch.mask[:, None, None, None], batch.images, 77).astype(np.uint8)
        return Batch(images, np.where(batch.mask, batch.labels, 3), batch.mask)

    assert not all(batch.mask.all() for batch in batches)
    jax.tree.map(np.testing.assert_array_equal, fit(RECIPE, [spoil(batch) for batch in batches]), alone)


def test_a_padded_batch_divides_by_its_real_count(batches):
    batch = jax.tree.map(lambda part: part[:8], batches[0])
    padded = Batch(
        np.concatenate([batch.images, batch.images]),
        np.concatenate([batch.labels, batch.labels]),
        np.arange(16) < 8,
    )
    step_config = replace(RECIPE, model=Mlp(features=(5,), classes=10), augment=())
    assert_same(fit(step_config, [batch]).params, fit(step_config, [padded]).params, atol=1e-7)


def test_the_step_is_plain_gradient_descent_written_out(batches):
    model = Mlp(features=(6,), classes=10)
    step_config = replace(RECIPE, model=model, augment=(), transformation=Sgd(learning_rate=0.5).build(1))
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
    step_config = replace(RECIPE, ema_decay=0.5)
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
    step_config = replace(RECIPE, model=replace_dtype(MODEL, "bfloat16"), ema_decay=0.9)
    state = fit(step_config, batches)
    floats = [leaf for leaf in jax.tree.leaves(state) if np.issubdtype(leaf.dtype, np.floating)]
    assert {leaf.dtype for leaf in floats} == {np.dtype("float32")}
    jaxpr = str(jax.make_jaxpr(partial(train_step, step_config))(create_state(step_config, batches[0]), batches[0]))
    assert re.search(r"bf16\[.*conv_general_dilated", jaxpr)


def replace_dtype(model, dtype):
    return model.clone(dtype=dtype)


def test_batch_statistics_move_in_training_and_stay_in_evaluation(batches):
    step_config = replace(RECIPE, model=Normalized(), augment=())
    before, after = create_state(step_config, batches[0]), fit(step_config, batches)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), before.model_state, after.model_state)
    assert max(jax.tree.leaves(moved)) > 0.01
    assert_same(fit(step_config, batches, devices(4)).params, after.params, atol=1e-4)
    # In evaluation the logits of an image depend on no other image: they are those of the statistics of training.
    images, variables = batches[0].images, get_variables(after)
    logits = compute_logits(step_config.model, variables, images)
    np.testing.assert_allclose(logits[:3], compute_logits(step_config.model, variables, images[:3]), rtol=1e-5)
    untrained = variables | {"batch_stats": before.model_state["batch_stats"]}
    assert np.abs(logits - compute_logits(step_config.model, untrained, images)).max() > 0.1


def test_a_batch_that_does_not_divide_names_one_that_does():
    with pytest.raises(UserError, match=r"batch_size=30 .* 4 devices.*try 28 or 32"):
        devices(4).check_batch_size(30)
    devices(4).check_batch_size(32, gradient_accumulation=2)


@pytest.mark.parametrize("parallel", ["jit", "pmap"])
def test_steps_together_are_the_steps_one_by_one(parallel, batches, alone):
    """With what counts being less than what comes at the end, on one device and on four."""
    for on in (devices(1, parallel), devices(4, parallel)):
        state = on.create_state(RECIPE, batches[0])
        steps = on.compile_train_step(RECIPE, state, batches[0], together=4)
        for start in range(0, STEPS, 4):
            some = [batches[min(start + i, STEPS - 1)] for i in range(4)]
            state = steps(state, jax.tree.map(lambda *x: np.stack(x), *some), min(4, STEPS - start))
        assert int(state.step) == STEPS
        assert_same(jax.device_get(state).params, alone.params)
        assert_same(jax.device_get(state).epoch_stats, alone.epoch_stats, atol=1e-3)


def test_mixup_and_class_weights_are_those_of_one_device_on_four_and_in_parts(batches):
    step_config = replace(RECIPE, mixup=Mixup(alpha=0.5), class_weights=tuple(np.linspace(0.5, 2, 10).tolist()))
    one = fit(step_config, batches)
    for parallel in ("jit", "pmap"):
        assert_same(fit(step_config, batches, devices(4, parallel)).params, one.params)
    assert_same(fit(replace(step_config, gradient_accumulation=2), batches).params, one.params)


def test_mixup_of_equal_examples_changes_nothing(batches):
    batch = Batch(np.repeat(batches[0].images[:1], BATCH, 0), np.repeat(batches[0].labels[:1], BATCH), batches[0].mask)
    plain = replace(RECIPE, augment=())
    assert_same(fit(replace(plain, mixup=Mixup()), [batch]).params, fit(plain, [batch]).params, atol=1e-6)


def test_mixup_is_the_step_on_examples_mixed_by_hand(batches):
    step_config, batch = replace(RECIPE, augment=()), batches[0]
    labels = np.eye(10, dtype=np.float32)[batch.labels]
    key = jax.random.fold_in(make_key(0, "mixup"), 0)
    following = (np.roll(batch.images, -1, 0), np.roll(labels, -1, 0))
    images, labels = Mixup(2.0).mix(key, jnp.arange(BATCH), jnp.asarray(batch.images), labels, *following)
    by_hand = fit(step_config, [Batch(np.asarray(images), np.asarray(labels), batch.mask)])
    assert_same(fit(replace(step_config, mixup=Mixup(2.0)), [batch]).params, by_hand.params, atol=1e-6)


def test_equal_class_weights_change_nothing_and_others_weigh_the_gradient(batches):
    assert_same(fit(replace(RECIPE, class_weights=(1.0,) * 10), batches[:3]).params, fit(RECIPE, batches[:3]).params)
    # A weight of two for one class is each of its examples seen twice; SGD's first step shows the gradient.
    batch, plain = batches[0], replace(RECIPE, augment=(), model=Mlp(features=(5,), classes=10))
    label = int(batch.labels[0])
    weighted = fit(replace(plain, class_weights=tuple(2.0 if c == label else 1.0 for c in range(10))), [batch])
    twice = np.concatenate([np.arange(BATCH), np.flatnonzero(batch.labels == label)])
    rows = Batch(*(part[np.resize(twice, 2 * BATCH)] for part in batch[:2]), np.arange(2 * BATCH) < len(twice))
    start = plain.model.init(make_key(0, "init"), batch.images)["params"]
    moved = jax.tree.map(lambda a, b: (a - b) * BATCH, weighted.params, start)
    expected = jax.tree.map(lambda a, b: (a - b) * len(twice), fit(plain, [rows]).params, start)
    assert_same(moved, expected, atol=1e-4)
    # The loss that is reported stays that of the examples.
    assert_same(weighted.epoch_stats.loss, fit(plain, [batch]).epoch_stats.loss)


def test_the_norm_of_every_third_gradient_is_that_of_a_run_that_takes_all(batches):
    """Steps 0 and 3 of 4."""

    def norms(step_config):
        state, sums = create_state(step_config, batches[0]), []
        for batch in (batches * 4)[:4]:
            before = state.interval_stats.gradient_norm
            state = jax.jit(partial(train_step, step_config))(state, batch)
            after = state.interval_stats.gradient_norm
            sums.append((float(after["sum"] - before["sum"]), int(after["count"] - before["count"])))
        return sums

    every, third = norms(RECIPE), norms(replace(RECIPE, norm_every=3))
    assert [count for _, count in every] == [1, 1, 1, 1]
    assert [count for _, count in third] == [1, 0, 0, 1]
    np.testing.assert_allclose([third[0][0], third[3][0]], [every[0][0], every[3][0]], rtol=1e-5)
    assert third[1][0] == third[2][0] == 0


def weighted(batches, random):
    """The same batches with a loss weight for each example."""
    return [batch._replace(weights=random.uniform(0, 2, len(batch.mask)).astype(np.float32)) for batch in batches]


def test_a_sample_weight_is_how_often_an_example_counts(batches):
    plain = replace(RECIPE, augment=(), model=Mlp(features=(5,), classes=10))
    batch, zeros = batches[0], np.zeros(BATCH, np.float32)
    ones = fit(plain, [batch._replace(weights=zeros + 1)])
    assert_same(ones.params, fit(plain, [batch]).params, atol=1e-6)
    # Weights of two and zero are examples seen twice and never; the gradient is still divided by all of them.
    half = np.arange(BATCH) < BATCH // 2
    twice = fit(plain, [batch._replace(weights=np.where(half, 2, 0).astype(np.float32))])
    rows = np.flatnonzero(half).repeat(2)
    assert_same(twice.params, fit(plain, [Batch(batch.images[rows], batch.labels[rows], batch.mask)]).params, atol=1e-6)
    # The loss that is reported stays that of the examples.
    assert_same(twice.epoch_stats.loss, ones.epoch_stats.loss)


def test_sample_weights_are_those_of_one_device_on_four_and_in_parts(batches, random):
    given = weighted(batches[:5], random)
    one = fit(RECIPE, given)
    for parallel in ("jit", "pmap"):
        assert_same(fit(RECIPE, given, devices(4, parallel)).params, one.params)
    assert_same(fit(replace(RECIPE, gradient_accumulation=2), given).params, one.params)


def test_the_pipeline_brings_the_weight_of_each_image(digits):
    weights = np.arange(len(digits.train), dtype=np.float32)
    split = replace(digits.train, sample_weight=weights, labels=np.arange(203, dtype=np.int32) % 10)
    images = {image.tobytes(): weight for image, weight in zip(split.images, weights, strict=True)}
    options = {"batch_size": BATCH, "remainder": "drop", "seed": 0, "start": 0, "stop": 6}
    for batch in read_train_batches(split, **options):
        assert [images[image.tobytes()] for image in batch.images] == batch.weights.tolist()
    for batches in read_train_batches(split, **options, together=3):
        assert batches.weights.shape == (3, BATCH)
