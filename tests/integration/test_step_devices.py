"""A step on four devices, by jit and pmap, in parts and several at once, is the step on one."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from support.steps import BATCH, STEP_CONFIG, STEPS, add_weights, assert_same, fit, make_devices, read_batches

from jaxclf.augment import Mixup
from jaxclf.models import ConvNext, EfficientNetLite, ResNet, Vit
from jaxclf.optimizers import Adam, Muon, Sgd
from jaxclf.training.state import summarize
from jaxclf.types import Batch

EVERYTHING = replace(
    STEP_CONFIG,
    transformation=Adam(learning_rate=1e-3).build(STEPS),
    ema_decay=0.9,
    mixup=Mixup(alpha=0.5),
    class_weights=tuple(np.linspace(0.5, 2, 10).tolist()),
)
GROUPED = replace(
    STEP_CONFIG,
    transformation=Muon(learning_rate=1e-3, freeze=("conv1",), layer_decay=0.75, clip_norm=1.0).build(
        STEPS, model=STEP_CONFIG.model
    ),
)

VIT = Vit(
    patch=7, width=8, depth=2, heads=2, classes=10, image_size=(28, 28), dropout=0.1, attention_dropout=0.3,
    drop_path=0.3,
)  # fmt: skip
NETWORKS = {
    "vit": VIT,
    "convnext": ConvNext(depths=(1, 1), features=(4, 6), classes=10, layer_scale=0.5, drop_path=0.3),
    "resnet": ResNet(depths=(1, 1), width=4, classes=10, batch_norm_group=2, drop_path=0.3),
    "resnet with group normalization": ResNet(depths=(1, 1), width=4, classes=10, norm="group", drop_path=0.3),
    "efficientnet lite": EfficientNetLite(
        depths=(1, 2), features=(4, 4), classes=10, kernel_sizes=(3, 5), strides=(1, 2), expansions=(1, 3),
        stem_features=4, top_features=8, batch_norm_group=2, dropout=0.2, drop_path=0.3,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def batches(digits):
    return read_batches(digits)


@pytest.fixture(scope="module")
def weighted_batches(batches):
    return add_weights(batches, np.random.default_rng(0))


@pytest.fixture(scope="module")
def alone(batches):
    return fit(STEP_CONFIG, batches)


@pytest.fixture(scope="module")
def everything_alone(weighted_batches):
    return fit(EVERYTHING, weighted_batches)


@pytest.mark.parametrize(("count", "parallel", "parts"), [(4, "jit", 1), (4, "pmap", 1), (1, "jit", 2), (4, "jit", 2)])
def test_adam_ema_mixup_class_and_sample_weights_are_those_of_one_device(
    count, parallel, parts, weighted_batches, everything_alone
):
    found = fit(replace(EVERYTHING, gradient_accumulation=parts), weighted_batches, make_devices(count, parallel))
    assert_same((found.params, found.ema), (everything_alone.params, everything_alone.ema))
    assert_same(summarize(EVERYTHING, found.epoch_stats), summarize(EVERYTHING, everything_alone.epoch_stats))


def test_groups_of_parameters_are_those_of_one_device(batches):
    one = fit(GROUPED, batches)
    for count, parallel, parts in ((4, "jit", 1), (4, "pmap", 1), (1, "jit", 2)):
        found = fit(replace(GROUPED, gradient_accumulation=parts), batches, make_devices(count, parallel))
        assert_same(found.params, one.params)
        assert jax.tree.structure(found.optimizer_state) == jax.tree.structure(one.optimizer_state)


@pytest.mark.parametrize("parts", [1, 2])
def test_pmap_gives_the_parameters_of_one_device(parts, batches, alone):
    many = fit(replace(STEP_CONFIG, gradient_accumulation=parts), batches, make_devices(4, "pmap"))
    assert_same(many.params, alone.params)


@pytest.mark.parametrize("parallel", ["jit", "pmap"])
def test_steps_together_are_the_steps_one_by_one(parallel, batches, alone):
    """With what counts being less than what comes at the end, on one device and on four."""
    for on in (make_devices(1, parallel), make_devices(4, parallel)):
        state = on.create_state(STEP_CONFIG, batches[0])
        steps = on.compile_train_step(STEP_CONFIG, state, batches[0], together=4)
        for start in range(0, STEPS, 4):
            some = [batches[min(start + i, STEPS - 1)] for i in range(4)]
            state = steps(state, jax.tree.map(lambda *x: np.stack(x), *some), min(4, STEPS - start))
        assert int(state.step) == STEPS
        assert_same(jax.device_get(state).params, alone.params)
        assert_same(jax.device_get(state).epoch_stats, alone.epoch_stats, atol=1e-3)


@pytest.fixture(scope="module", params=NETWORKS.values(), ids=NETWORKS)
def network(request):
    # Blank patches have no variance, and the gradients of their normalization are large.
    transformation = Sgd(learning_rate=0.1, momentum=0.9, clip_norm=1.0).build(STEPS)
    return replace(STEP_CONFIG, model=request.param, augment=(), transformation=transformation)


@pytest.fixture(scope="module")
def network_alone(network, batches):
    return fit(network, batches[-5:])


@pytest.mark.parametrize(
    ("count", "parallel", "parts"), [(1, "jit", 2), (1, "jit", 4), (4, "jit", 1), (4, "pmap", 1), (4, "pmap", 2)]
)
def test_a_network_with_dropout_and_drop_path_does_not_depend_on_parts_and_devices(
    count, parallel, parts, network, batches, network_alone
):
    found = fit(replace(network, gradient_accumulation=parts), batches[-5:], make_devices(count, parallel))
    assert_same((found.params, found.model_state), (network_alone.params, network_alone.model_state))


def test_a_network_with_dropout_and_drop_path_does_not_depend_on_padding(network, batches):
    batch = jax.tree.map(lambda part: part[:8], batches[0])
    images, labels = np.resize(batch.images, batches[0].images.shape), np.resize(batch.labels, BATCH)
    found, expected = fit(network, [Batch(images, labels, np.arange(BATCH) < 8)]), fit(network, [batch])
    assert_same((found.params, found.model_state), (expected.params, expected.model_state))


def test_dropout_of_attention_and_drop_path_change_the_step(batches):
    """So that equal masks are what the tests above compare."""

    def move(model):
        return fit(replace(STEP_CONFIG, model=model, augment=()), batches[:1]).params["patch_embedding"]["kernel"]

    expected = move(VIT)
    for name in ("attention_dropout", "drop_path"):
        assert np.abs(move(VIT.clone(**{name: 0.0})) - expected).max() > 1e-3
