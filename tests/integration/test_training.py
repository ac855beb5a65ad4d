"""Whole training runs: accuracy, early stopping, compilation."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from support.configs import FULL
from support.runs import at_step, fit, rows, run_on

from jaxclf.models import Cnn
from jaxclf.optimizers import Adam, Sgd
from jaxclf.training.callbacks import Callback
from jaxclf.training.devices import Devices
from jaxclf.training.trainer import Interrupted, Trainer
from jaxclf.types import Split, Splits


def test_a_convolutional_network_learns_real_digits(mnist):
    few = Split(mnist.train.images[:2_000], mnist.train.labels[:2_000], mnist.train.class_names)
    config = replace(
        FULL,
        model=Cnn(features=(8, 16), dense=(32,), classes=10),
        optimizer=Adam(learning_rate=3e-3),
        augment=(),
        batch_size=40,
        ema_decay=0.0,
        evaluate_train=False,
    )
    run = Trainer(config, Splits(few, None, None), Devices.all())
    run.fit()
    assert run.progress.latest["train"]["accuracy"] > 0.84  # 0.887 ± 0.010 over seeds (n = 6)


def stubborn(path, digits, stop=None):
    """A run whose validation never becomes better after its first epoch: nothing is learnt."""
    config = replace(
        FULL, optimizer=Sgd(learning_rate=0.0), augment=(), mixup=None, ema_decay=0.0, epochs=9, patience=3
    )
    return run_on(digits, path, config, stop=stop)


def test_training_stops_when_patience_ends_and_resumed_ends_alike(digits, tmp_path):
    whole = stubborn(tmp_path / "whole", digits)
    whole.fit()
    assert (whole.progress.epochs_done, whole.progress.best_epoch, whole.stopped_early) == (4, 1, True)
    stopped = stubborn(tmp_path / "stopped", digits, at_step(35))
    with pytest.raises(Interrupted):
        stopped.fit()
    stopped.checkpoints.close()
    resumed = stubborn(tmp_path / "stopped", digits)
    state = resumed.fit()
    assert (resumed.progress.epochs_done, resumed.progress.best_epoch, int(state.step)) == (4, 1, 52)
    resumed.checkpoints.close()
    again = stubborn(tmp_path / "stopped", digits)
    assert int(again.fit().step) == 52  # it does not go on
    for run in (whole, again):
        run.checkpoints.close()
    assert rows(tmp_path / "stopped") == rows(tmp_path / "whole")


@pytest.mark.parametrize("steps_per_execution", [1, 4])
def test_nothing_is_compiled_behind_the_first_epoch(steps_per_execution, digits, tmp_path):
    compiled, seen = [], []

    class Watch(Callback):
        def on_step_end(self, trainer, steps):
            seen.append((trainer.progress.epochs_done, len(compiled)))

    run = run_on(digits, tmp_path, replace(FULL, steps_per_execution=steps_per_execution), callbacks=[Watch()])
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **_: compiled.append(event) if event.endswith("backend_compile_duration") else None
    )
    try:
        run.fit()
    finally:
        jax.monitoring.clear_event_listeners()
        run.checkpoints.close()
    assert compiled  # or nothing listens
    first_epoch = [count for epoch, count in seen if epoch == 0]
    assert len(set(first_epoch)) == 1  # none between the steps
    second_step, end = seen[len(first_epoch)][1], len(compiled)
    assert second_step == end


def test_a_run_may_resume_with_its_images_on_the_devices(digits, tmp_path):
    whole = fit(run_on(digits, tmp_path / "whole", FULL))
    assert fit(run_on(digits, tmp_path / "both", FULL, Devices.all(input="device"), at_step(5))) is None
    resumed = fit(run_on(digits, tmp_path / "both", FULL, Devices.all(input="host")))
    jax.tree.map(np.testing.assert_array_equal, resumed, whole)
    assert rows(tmp_path / "both") == rows(tmp_path / "whole")
