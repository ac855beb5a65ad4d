"""Training images on the devices give the batches, and the parameters, of those on the host."""

from dataclasses import dataclass, replace
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from support.steps import BATCH, STEP_CONFIG, STEPS, assert_same, make_devices, read_batches

from jaxclf.errors import UserError
from jaxclf.training.devices import Devices
from jaxclf.training.pipeline import group_steps, read_train_batches
from jaxclf.training.resident import gather_batch, has_room, put_on_devices
from jaxclf.types import Split


@dataclass
class Files:
    """Images that are read on demand."""

    images: np.ndarray

    @property
    def shape(self):
        return self.images.shape

    def __getitem__(self, indices):
        return self.images[indices]


@pytest.fixture
def weighted_split(digits, random):
    train = digits.train
    return replace(train, sample_weight=random.uniform(0, 2, len(train)).astype(np.float32))


@pytest.mark.parametrize("remainder", ["pad", "drop"])
@pytest.mark.parametrize("together", [None, 3])
@pytest.mark.parametrize("is_array", [True, False])
def test_gathered_batches_are_those_of_the_host(weighted_split, remainder, together, is_array):
    split = weighted_split if is_array else replace(weighted_split, images=Files(weighted_split.images))
    options = {"batch_size": BATCH, "remainder": remainder, "seed": 1, "start": 5, "stop": 30, "together": together}
    resident = put_on_devices(split, make_devices(4).replicated)
    found = read_train_batches(split, **options, only_indices=True)
    for there, here in zip(found, read_train_batches(split, **options), strict=True):
        assert there.images.dtype == np.int32 and there.labels == ()
        jax.tree.map(np.testing.assert_array_equal, gather_batch(resident, there), here)


def fit(split, on, together, resident):
    """Train for STEPS steps; groups end with their epoch of 13."""
    options = {"batch_size": BATCH, "remainder": "pad", "seed": 0, "start": 0, "stop": STEPS, "together": together}
    batch = read_batches(SimpleNamespace(train=split))[0]
    state = on.create_state(STEP_CONFIG, batch)
    held = on.keep_images(split)
    assert (held is not None) == resident
    step = on.compile_train_step(STEP_CONFIG, state, batch, together, held)
    batches = read_train_batches(split, **options, only_indices=resident)
    for some, group in zip(batches, group_steps(0, STEPS, 13, together), strict=True):
        state = step(state, some, len(group))
    return jax.device_get(state)


@pytest.mark.parametrize(("count", "together"), [(1, 1), (1, 3), (4, 3)])
def test_training_is_the_same_to_the_bit(digits, count, together):
    host = fit(digits.train, make_devices(count), together, resident=False)
    device = fit(digits.train, replace(make_devices(count), input="device"), together, resident=True)
    assert int(device.step) == STEPS
    jax.tree.map(np.testing.assert_array_equal, device, host)


@pytest.mark.parametrize("resident", [False, True])
def test_loops_of_known_length_take_the_same_steps(digits, monkeypatch, resident):
    """As on accelerators, where groups of another length are single steps."""
    expected = fit(digits.train, make_devices(1), 3, resident=False)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    on = replace(make_devices(1), input="device" if resident else "host")
    found = fit(digits.train, on, 3, resident)
    assert int(found.step) == STEPS
    assert_same(found.params, expected.params)
    assert_same(found.epoch_stats, expected.epoch_stats, atol=1e-3)


def test_the_program_of_an_accelerator_has_no_condition_and_no_loop_of_unknown_length(digits, monkeypatch):
    programs = []

    def trace(function, arguments, **_):
        programs.append(str(jax.make_jaxpr(function)(*arguments)))
        return function

    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr("jaxclf.training.devices.compile_fast", trace)
    on = replace(make_devices(1), input="device")
    batch = read_batches(digits)[0]
    step_config = replace(STEP_CONFIG, norm_every=20)
    state = jax.eval_shape(lambda: make_devices(1).create_state(step_config, batch))
    on.compile_train_step(step_config, state, batch, 3, on.keep_images(digits.train))
    (program,) = programs
    assert "length=3" in program
    assert "while[" not in program and "cond[" not in program


def test_images_go_to_accelerators_where_they_take_a_quarter_of_the_memory_at_most(monkeypatch):
    split = Split(np.zeros((10, 2, 2, 1), np.uint8), np.zeros(10, np.int32), ("a", "b"))
    assert not has_room(split)
    memory = [{"bytes_limit": 1000}, {"bytes_limit": 160}]
    monkeypatch.setattr(jax, "local_devices", lambda: [SimpleNamespace(memory_stats=lambda m=m: m) for m in memory])
    assert not has_room(split)  # of a CPU
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert has_room(split)
    memory[1] = {"bytes_limit": 159}
    assert not has_room(split)
    memory[1] = None  # a platform that does not tell
    assert not has_room(split)


def test_pmap_has_no_images_on_the_devices(digits):
    assert Devices.all("pmap").keep_images(digits.train) is None
    with pytest.raises(UserError, match="--input device is for --parallel jit"):
        Devices.all("pmap", "device")
