"""The law of resuming: a run that was stopped anywhere ends with the bytes of one that was not."""

import json
from dataclasses import replace

import flax.linen as nn
import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache
from PIL import Image
from support.configs import MLP
from support.runs import assert_same_bytes, at_call, at_step, fit, rows, run_on

from jaxclf.augment import Cutout, Mixup, Rotate
from jaxclf.datasets import ImageFolder
from jaxclf.metrics import TopK
from jaxclf.models import Cnn
from jaxclf.optimizers import Adam, AdamW, Muon, OneCycle, WarmupCosine
from jaxclf.training.devices import Devices
from jaxclf.types import Split, Splits
from jaxclf.xla.program_cache import keep_programs

# jax 0.12 cannot serialise a program with oneDNN's convolutions; it is compiled again then.
pytestmark = pytest.mark.filterwarnings("ignore:Error writing persistent compilation cache entry")


class Normalized(nn.Module):
    """A network with batch statistics."""

    @nn.compact
    def __call__(self, images, train=False):
        x = nn.Dense(9)(images.reshape(len(images), -1) / 255.0)
        return nn.Dense(10)(nn.Dropout(0.2, deterministic=not train)(nn.BatchNorm(not train)(x)))


AVERAGED = replace(
    MLP,
    optimizer=Adam(learning_rate=0.01, schedule=OneCycle()),
    mixup=Mixup(),
    class_weights="balanced",
    ema_decay=0.9,
    gradient_accumulation=2,
    steps_per_execution=3,
)
PICTURES = replace(
    MLP,
    model=Cnn(features=(3,), dense=(5,), classes=2, dropout=0.3),
    augment=(Rotate(10.0), Cutout(3)),
    remainder="drop",
    log_every=2,
)
CASES = {
    "digits, SGD": MLP,
    "digits, Adam and running mean": AVERAGED,
    "pictures, SGD": PICTURES,
    "pictures, Adam and running mean": replace(PICTURES, optimizer=AVERAGED.optimizer, ema_decay=0.9),
    "batch statistics": replace(MLP, model=Normalized()),
    "digits, AdamW by layer": replace(
        MLP,
        optimizer=AdamW(
            learning_rate=0.01,
            freeze=("dense1/bias",),
            layer_decay=0.75,
            head_rate=3.0,
            clip_norm=1.0,
            schedule=WarmupCosine(warmup=0.5, unit="epochs"),
        ),
    ),
    "pictures, Muon and a frozen layer": replace(PICTURES, optimizer=Muon(learning_rate=0.01, freeze=("conv1",))),
}
# Asked once before the first step, then behind each of 13 an epoch (4 of pictures; Adam's digits in 5 executions), and
# behind each of the 8 batches (3 or 4) evaluated.
STOPS = dict.fromkeys(CASES, (2, 5, 10)) | {"digits, SGD": (2, 8, 14, 15, 21, 22, 23, 41)}
STOPS |= {"digits, AdamW by layer": (5,), "pictures, Muon and a frozen layer": (5,)}


@pytest.fixture(scope="module", autouse=True)
def compiled_once(tmp_path_factory):
    """Every start of a run compiles the same programs."""
    keep_programs(str(tmp_path_factory.mktemp("compiled")))
    yield
    jax.config.update("jax_compilation_cache_dir", None)
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Some noise of two colours, in folders."""
    root, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for channel, name in ((0, "red"), (2, "blue")):
        (root / name).mkdir()
        for i in range(50):
            pixels = random.integers(0, 100, (10, 10, 3), np.uint8)
            pixels[..., channel] += 100
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return ImageFolder(str(root), (10, 10), train_fraction=0.7, test_fraction=0.1).load()


@pytest.fixture(scope="module")
def splits_of(digits, pictures):
    """The data of a case."""
    return lambda name: pictures if name.startswith("pictures") else digits


@pytest.fixture(scope="module")
def whole(splits_of, tmp_path_factory):
    """The same runs, not stopped: path and final state."""
    done = {}

    def run(name):
        if name not in done:
            path = tmp_path_factory.mktemp("whole")
            done[name] = path, fit(run_on(splits_of(name), path, CASES[name]))
        return done[name]

    return run


@pytest.mark.parametrize(
    ("name", "call"),
    [(name, call) for name, calls in STOPS.items() for call in calls],
)
def test_a_run_stopped_once_ends_with_the_same_bytes(name, call, whole, splits_of, tmp_path):
    assert fit(run_on(splits_of(name), tmp_path, CASES[name], stop=at_call(call))) is None
    resumed = run_on(splits_of(name), tmp_path, CASES[name])
    assert resumed.resumed is not None
    assert_same_bytes(fit(resumed), whole(name)[1])
    assert rows(tmp_path) == rows(whole(name)[0])


@pytest.mark.parametrize(("name", "call"), [("digits, Adam and running mean", 10), ("pictures, SGD", 6)])
def test_a_run_stopped_again_and_again_ends_with_the_same_bytes(name, call, whole, splits_of, tmp_path):
    state, starts = None, 0
    while state is None:
        state = fit(run_on(splits_of(name), tmp_path, CASES[name], stop=at_call(call)))
        starts += 1
    assert starts > 2
    assert_same_bytes(state, whole(name)[1])
    assert rows(tmp_path) == rows(whole(name)[0])


def test_checkpoints_within_an_epoch_change_nothing_and_are_gone_on_from(whole, digits, tmp_path):
    config = replace(MLP, checkpoint_every=4)
    kept = []

    def stop(run):
        kept.append(run.checkpoints.saved[-1].step if run.checkpoints.saved else 0)
        if run.progress.steps_done == 24:  # two epochs are 26 steps
            raise KeyboardInterrupt  # as good as kill -9: nothing is saved on the way out
        return 0

    run = run_on(digits, tmp_path, config, stop=stop)
    with pytest.raises(KeyboardInterrupt):
        fit(run)
    assert {4, 8, 12, 13, 16, 20} >= set(kept) - {0} >= {4, 16}  # others may be seen late: they are written aside
    again = run_on(digits, tmp_path, config)
    assert again.resumed.step == 20
    assert_same_bytes(fit(again), whole("digits, SGD")[1])
    assert rows(tmp_path) == rows(whole("digits, SGD")[0])


def test_what_one_device_has_saved_four_restore_and_go_on_from(digits, tmp_path):
    one = Devices(jax.make_mesh((1,), ("data",), Devices.all().mesh.axis_types, devices=jax.devices()[:1]))
    config = replace(AVERAGED, gradient_accumulation=1)
    alone = fit(run_on(digits, tmp_path / "alone", config, one))
    assert fit(run_on(digits, tmp_path / "moved", config, one, stop=at_call(3))) is None
    moved = run_on(digits, tmp_path / "moved", config)
    like = moved.start()
    restored = moved.checkpoints.restore(moved.resumed, like)
    back = run_on(digits, tmp_path / "moved", config, one)
    on_one = back.checkpoints.restore(back.resumed, back.start())
    assert_same_bytes(jax.device_get(restored), jax.device_get(on_one))
    assert (restored.step.sharding.num_devices, on_one.step.sharding.num_devices) == (4, 1)
    back.checkpoints.close()
    state = fit(moved)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), state.params, alone.params)


def test_the_speed_of_an_interval_counts_the_time_before_a_stop(digits, tmp_path):
    fit(run_on(digits, tmp_path, MLP, stop=at_call(3)))
    resumed = run_on(digits, tmp_path, MLP)
    before = resumed.resumed.notes
    assert 0 < before["interval_seconds"] <= before["train_seconds"]
    fit(resumed)
    first = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    assert first["step"] == 5
    assert 80 / first["images_per_second"] > before["interval_seconds"]
    assert resumed.progress.train_seconds > before["train_seconds"]


def test_a_run_whose_validation_is_never_finite_stops_early_where_it_would_have(digits, tmp_path):
    """The best score is minus infinity, for which a manifest has no number."""
    images = np.full_like(digits.validation.images, np.nan, np.float32)
    validation = Split(images, digits.validation.labels, digits.validation.class_names)
    splits = Splits(digits.train, validation, digits.test)
    config = replace(MLP, metrics=(TopK(3),), evaluate_train=False, patience=2, epochs=5)
    whole = run_on(splits, tmp_path / "whole", config)
    state = fit(whole)
    assert fit(run_on(splits, tmp_path / "stopped", config, stop=at_step(20))) is None  # in the second epoch
    resumed = run_on(splits, tmp_path / "stopped", config)
    assert_same_bytes(fit(resumed), state)
    assert whole.progress.epochs_done == resumed.progress.epochs_done == 3
    assert rows(tmp_path / "stopped") == rows(tmp_path / "whole")
