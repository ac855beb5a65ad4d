"""Fit and evaluate: what is written, and every example counts once."""

import json
import time
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from support.configs import FULL
from support.runs import assert_same_bytes, at_step, rows, run_on
from support.steps import make_devices

from jaxclf.errors import NonFiniteError, UserError
from jaxclf.metrics import Accuracy, Confusion, TopK
from jaxclf.models import Mlp
from jaxclf.optimizers import Sgd
from jaxclf.training import devices
from jaxclf.training.devices import Devices
from jaxclf.training.evaluation import evaluate
from jaxclf.training.state import get_variables
from jaxclf.training.step_config import compute_balanced_weights
from jaxclf.training.trainer import Interrupted, Trainer
from jaxclf.types import Split, Splits


@pytest.fixture(scope="module")
def whole(digits, tmp_path_factory):
    path = tmp_path_factory.mktemp("whole")
    run = run_on(digits, path, FULL)
    state = jax.device_get(run.fit())
    run.checkpoints.close()
    return path, state, run


def test_a_run_of_executions_is_the_run_of_their_steps(digits, tmp_path, whole):
    """Epochs of 13 steps in executions of 4, 4, 4 and 1; intervals end with the execution in which they would."""
    run = run_on(digits, tmp_path, replace(FULL, steps_per_execution=4))
    state = jax.device_get(run.fit())
    run.checkpoints.close()
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5), state.params, whole[1].params)
    ends = [row["step"] for row in rows(tmp_path) if row["period"] == "interval"]
    assert ends == [8, 12, 13, 17, 21, 25, 26, 30, 38, 39]
    epochs = ([row for row in rows(path) if row["period"] == "epoch"] for path in (tmp_path, whole[0]))
    for ours, one_by_one in zip(*epochs, strict=True):
        assert ours.keys() == one_by_one.keys()
        assert all(ours[k] == (v if isinstance(v, str) else pytest.approx(v, rel=1e-3)) for k, v in one_by_one.items())


def test_an_execution_has_at_most_the_steps_of_an_epoch(digits):
    runs = [Trainer(replace(FULL, epochs=2, steps_per_execution=steps), digits) for steps in (13, 50)]
    assert_same_bytes(*(jax.device_get(run.fit()) for run in runs))
    assert [next(run.read_batches(0, 26)).mask.shape for run in runs] == [(13, 16), (13, 16)]


def test_an_execution_of_a_whole_epoch_is_one_program_on_accelerators(digits, monkeypatch):
    """The program of many steps is the one that is used; single steps are not compiled."""
    lengths, compile_fast = [], devices.compile_fast

    def count_steps(function, arguments, **options):
        lengths.append(arguments[1].mask.shape[0])
        return compile_fast(function, arguments, **options)

    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(devices, "compile_fast", count_steps)
    splits = Splits(digits.train, None, None)
    config = replace(FULL, epochs=2, steps_per_execution=50, evaluate_train=False)
    run = Trainer(config, splits, replace(make_devices(1), input="host"))
    assert int(run.fit().step) == 26
    assert lengths == [13]


def test_rows_name_split_period_and_step(whole):
    path, _, run = whole
    assert run.total_steps == 39
    found = [(row["step"], row["split"], row["period"]) for row in rows(path)]
    first = [(5, "train", "interval"), (10, "train", "interval"), (13, "train", "interval")]
    first += [(13, split, "epoch") for split in ("train", "train_full", "validation")]
    assert found[:6] == first
    assert {"loss", "accuracy", "gradient_norm", "learning_rate"} <= rows(path)[0].keys()


def test_the_epoch_row_is_the_running_mean_of_its_intervals(whole):
    intervals = [row for row in rows(whole[0]) if row["step"] <= 13 and row["period"] == "interval"]
    images = [5 * 16, 5 * 16, 203 - 10 * 16]
    epoch = next(row for row in rows(whole[0]) if (row["split"], row["period"]) == ("train", "epoch"))
    for name in ("loss", "accuracy"):
        mean = np.average([row[name] for row in intervals], weights=images)
        assert epoch[name] == pytest.approx(mean, rel=1e-6)


def test_checkpoints_keep_the_last_two_and_the_best(digits, tmp_path):
    run = run_on(digits, tmp_path, replace(FULL, epochs=5, optimizer=Sgd(learning_rate=1e-9)))
    run.fit()
    run.checkpoints.wait()
    # With next to no learning rate nothing changes, and the latest of equals is the best.
    assert [saved.step for saved in run.checkpoints.saved] == [52, 65]
    assert run.checkpoints.best.step == 65
    assert run.checkpoints.find("last").step == 65
    for which in ("3", "newest", ""):
        with pytest.raises(UserError, match="last, best or one of the steps 52, 65"):
            run.checkpoints.find(which)
    run.checkpoints.close()


def test_nothing_is_chosen_by_the_test_set(digits, tmp_path):
    run = run_on(Splits(digits.train, None, digits.test), tmp_path, replace(FULL, epochs=1))
    run.fit()
    run.checkpoints.wait()
    assert {row["split"] for row in rows(tmp_path)} == {"train", "train_full", "test"}
    assert run.checkpoints.best is None
    with pytest.raises(UserError, match="no validation split"):
        run.checkpoints.find("best")
    run.checkpoints.close()


@pytest.fixture(scope="module")
def evaluated(whole):
    run = whole[2]
    step_config = replace(run.step_config, metrics=(Accuracy(), TopK(3), Confusion()))
    state = jax.device_put(whole[1], run.devices.replicated)
    return partial(
        evaluate,
        step_config,
        run.devices,
        run.devices.compile_eval_step(step_config),
        get_variables(state),
        keep_logits=True,
    )


@pytest.mark.parametrize("batch_size", [7, 32, 101, 128])
def test_any_batch_size_evaluates_every_example_once(batch_size, digits, evaluated):
    values, logits = evaluated(digits.test, batch_size)
    assert logits.shape == (101, 10)
    labels = digits.test.labels
    assert values["accuracy"] == np.count_nonzero(np.argmax(logits, axis=1) == labels) / 101
    assert 0.2 < values["accuracy"] < 1.0  # there are mistakes to count
    assert values["confusion_matrix"].sum() == 101
    compute_log_probabilities = np.float64(logits) - np.log(np.exp(np.float64(logits)).sum(axis=1, keepdims=True))
    assert values["loss"] == pytest.approx(-compute_log_probabilities[np.arange(101), labels].mean(), rel=1e-5)


def test_the_running_mean_of_the_parameters_is_what_is_evaluated(whole):
    state = whole[1]
    assert np.abs(state.ema["logits"]["kernel"] - state.params["logits"]["kernel"]).max() > 1e-4
    assert get_variables(state)["params"] is state.ema


def test_training_that_is_not_finite_stops_and_names_the_step(digits):
    config = replace(FULL, optimizer=Sgd(learning_rate=1e30), model=Mlp(features=(5, 5), classes=10))
    with pytest.raises(NonFiniteError, match=r"step 5: loss nan.*\n.*learning-rate"):
        Trainer(config, digits, Devices.all()).fit()


def test_a_metric_that_gives_arrays_stays_out_of_the_lines(digits, tmp_path):
    run = run_on(digits, tmp_path, replace(FULL, epochs=1, metrics=(Confusion(), TopK(3))))
    run.fit()
    run.checkpoints.close()
    validation = next(row for row in rows(tmp_path) if row["split"] == "validation")
    assert {"loss", "top_3_accuracy"} <= validation.keys()
    assert "confusion_matrix" not in validation
    # Without an accuracy, the best is what has the lowest loss.
    assert run.checkpoints.best.step == 13


def test_a_run_goes_on_with_no_other_data(digits, tmp_path):
    stopped = run_on(digits, tmp_path, FULL, stop=at_step(20))
    with pytest.raises(Interrupted):
        stopped.fit()
    stopped.checkpoints.close()
    less = Split(digits.train.images[:-1], digits.train.labels[:-1], digits.train.class_names)
    run = run_on(Splits(less, digits.validation, digits.test), tmp_path, FULL)
    with pytest.raises(UserError, match="the data is not what this run began with") as error:
        run.fit()
    run.checkpoints.close()
    assert error.value.items == ["examples.train: 203 -> 202"]


def test_patience_needs_validation(digits):
    with pytest.raises(UserError, match="patience=2 stops by validation"):
        Trainer(replace(FULL, patience=2), Splits(digits.train, None, digits.test), Devices.all())


def test_balanced_weights_give_every_class_the_same_share():
    labels = np.repeat(np.arange(3, dtype=np.int32), (6, 3, 1))
    split = Split(np.zeros((10, 1, 1, 1), np.uint8), labels, ("a", "b", "c", "none"))
    weights = np.array(compute_balanced_weights(split))[labels]
    assert np.allclose([weights[labels == label].sum() for label in range(3)], 10 / 3)
    assert weights.mean() == pytest.approx(1)


def test_the_wait_for_data_is_measured(digits, tmp_path):
    class Slow:
        shape = digits.train.images.shape

        def __getitem__(self, indices):
            time.sleep(0.02)
            return digits.train.images[indices]

    slow = Splits(Split(Slow(), digits.train.labels, digits.train.class_names), digits.validation, None)
    run = run_on(slow, tmp_path, replace(FULL, epochs=1, evaluate_train=False))
    run.fit()
    run.checkpoints.close()
    lines = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    waits = [row["data_wait_seconds"] for row in lines if row["period"] == "interval"]
    assert sum(waits) == pytest.approx(run.progress.data_wait_seconds)
    assert 0 < run.progress.data_wait_seconds <= run.progress.train_seconds


def test_a_wait_counts_only_where_the_device_has_nothing_to_do(digits, tmp_path):
    run = run_on(digits, tmp_path, FULL)
    batch = next(run.read_batches(0, 1))
    for ready in (False, True):
        run.state = SimpleNamespace(step=SimpleNamespace(is_ready=lambda ready=ready: ready))
        assert run.wait_for_batches(iter([batch])) is batch
        assert (run.progress.data_wait_seconds > 0) is ready
