"""The Python API with a run directory: what it leaves, loads, resumes and starts from."""

import json
from dataclasses import replace

import flax.linen as nn
import jax
import numpy as np
import pytest
from support.configs import SMALL

import jaxclf
from jaxclf.config_io import to_json
from jaxclf.datasets import Arrays
from jaxclf.errors import UserError
from jaxclf.models import Cnn, Mlp
from jaxclf.optimizers import Adam
from jaxclf.training.trainer import Interrupted

CONFIG = replace(SMALL, epochs=2)


@pytest.fixture(scope="module")
def run(digits, tmp_path_factory):
    return jaxclf.fit(CONFIG, splits=digits, workdir=tmp_path_factory.mktemp("api") / "run")


def without_clock(rows):
    return [{k: v for k, v in row.items() if k not in ("images_per_second", "data_wait_seconds")} for row in rows]


def test_without_a_workdir_nothing_is_written_and_the_numbers_are_the_same(run, digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kept_nothing = jaxclf.fit(CONFIG, splits=digits)
    assert not list(tmp_path.iterdir())
    assert without_clock(kept_nothing.history) == without_clock(run.history)
    assert kept_nothing.summary["test"] == run.summary["test"]
    jax.tree.map(np.testing.assert_array_equal, kept_nothing.variables, run.variables)
    with pytest.raises(UserError, match="no directory"):
        _ = kept_nothing.directory


def test_a_workdir_holds_a_run(run):
    files = {path.name for path in run.path.iterdir()} - {".lock"}
    assert files == {
        "checkpoints", "config.json", "environment.json", "metrics.jsonl", "parameters.csv", "report.html",
        "summary.json", "tensorboard",
    }  # fmt: skip
    assert json.loads((run.path / "config.json").read_text()) == to_json(CONFIG)
    assert [row["split"] for row in run.history if row["period"] == "epoch"] == ["train", "validation"] * 2 + ["test"]


def test_a_loaded_run_is_the_run(run, digits):
    loaded = jaxclf.load(run.path, splits=digits)
    assert isinstance(loaded, jaxclf.Run)
    np.testing.assert_array_equal(loaded.predict(digits.test.images), run.predict(digits.test.images))
    assert loaded.history == run.history
    assert jaxclf.evaluate(loaded) == run.evaluate()


def test_a_finished_run_is_loaded_and_another_config_is_refused(run, digits):
    def list_times():
        return {path: path.stat().st_mtime_ns for path in run.path.rglob("*") if path.name != ".lock"}

    before = list_times()
    again = jaxclf.fit(CONFIG, splits=digits, workdir=run.path)
    assert list_times() == before
    np.testing.assert_array_equal(again.predict(digits.test.images), run.predict(digits.test.images))
    with pytest.raises(UserError, match="another config"):
        jaxclf.fit(replace(CONFIG, seed=1), splits=digits, workdir=run.path)


class Own(nn.Module):
    """A network that config.json names, and that is in none of jaxclf's modules."""

    @nn.compact
    def __call__(self, images):
        return nn.Dense(3)(images.reshape(len(images), -1) / 255)


def test_a_finished_run_has_the_config_that_is_given(random, tmp_path):
    images, labels = random.integers(0, 256, (40, 6, 5, 3), np.uint8), np.arange(40) % 3
    config = replace(SMALL, dataset=Arrays(images, labels, test=(images, labels)), model=Own(), batch_size=8)
    first, again = (jaxclf.fit(config, workdir=tmp_path / "run") for _ in range(2))
    assert again.evaluate() == first.evaluate()
    for wrong, message in (({"data": images}, "with labels"), ({"data": images[:, :4], "labels": labels}, "expected")):
        with pytest.raises(UserError, match=message):
            again.evaluate(**wrong)


def test_a_run_whose_images_were_given_is_loaded(random, tmp_path):
    images, labels = random.integers(0, 256, (40, 6, 5, 3), np.uint8), np.arange(40) % 3
    config = replace(SMALL, dataset=None, model=Cnn(features=(2,), dense=(), classes=3), batch_size=8)
    run = jaxclf.fit(config, splits=Arrays(images, labels).load(), workdir=tmp_path / "run")
    np.testing.assert_array_equal(jaxclf.load(tmp_path / "run").predict(images), run.predict(images))


def test_a_run_that_is_stopped_before_its_first_epoch_ends(digits, tmp_path):
    class Stop(jaxclf.Callback):
        def on_ready(self, trainer):
            trainer.stop_training = True

    run = jaxclf.fit(CONFIG, splits=digits, workdir=tmp_path / "run", callbacks=[Stop()])
    assert (run.summary["steps"], run.summary["images_per_second"]) == (0, 0)


def test_an_interrupted_run_resumes_to_the_same_numbers(run, digits, tmp_path):
    class StopAt(jaxclf.Callback):
        def on_step_end(self, trainer, steps):
            trainer.interrupted = 15 if steps.stop == 7 else 0

    with pytest.raises(Interrupted) as interrupted:
        jaxclf.fit(CONFIG, splits=digits, workdir=tmp_path, callbacks=[StopAt()])
    assert (interrupted.value.signal, interrupted.value.step) == (15, 7)
    resumed = jaxclf.fit(CONFIG, splits=digits, workdir=tmp_path)
    assert without_clock(resumed.history) == without_clock(run.history)
    jax.tree.map(np.testing.assert_array_equal, resumed.variables, run.variables)


def test_two_fits_in_one_process_with_other_shapes(digits, random):
    small = random.integers(0, 256, (40, 6, 5, 3), np.uint8)
    labels = np.arange(40) % 3
    config = replace(
        SMALL,
        dataset=Arrays(small, labels, validation=0.2, test=(small, labels)),
        model=Cnn(features=(2,), dense=(), classes=3),
        batch_size=8,
    )
    run = jaxclf.fit(config)
    assert run.predict(small).shape == (40, 3)
    assert run.summary["test"]["examples"] == 40


def test_training_starts_from_given_variables(run, digits):
    still = replace(SMALL, optimizer=Adam(learning_rate=0.0), epochs=1)
    for init in (run, run.variables):
        again = jaxclf.fit(still, splits=digits, init=init)
        jax.tree.map(np.testing.assert_array_equal, again.variables, run.variables)
    with pytest.raises(UserError, match="do not fit the model") as error:
        jaxclf.fit(replace(still, model=Mlp(features=(9,), classes=10)), splits=digits, init=run)
    assert any("float32[784, 9]" in item and "float32[784, 8]" in item for item in error.value.items)
