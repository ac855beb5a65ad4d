"""Numbers that are not finite: they end a run, or are left out and counted, and never saved."""

import math
from contextlib import closing
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.configs import MLP
from support.runs import assert_same_bytes, at_call, fit, rows, run_on

from jaxclf.errors import NonFiniteError
from jaxclf.optimizers import Adam
from jaxclf.training.callbacks import Callback
from jaxclf.training.devices import Devices
from jaxclf.training.state import get_variables
from jaxclf.training.trainer import Trainer
from jaxclf.types import Split, Splits

# 13 steps an epoch of 203 images, a log line every fifth.
CONFIG = replace(MLP, optimizer=Adam(learning_rate=0.01), ema_decay=0.9, evaluate_train=False, augment=(), epochs=3)


@pytest.fixture(scope="module")
def spoilt(digits):
    """One training image is no image."""
    images = digits.train.images / np.float32(255)
    images[100, 3, 4] = np.nan
    return Splits(Split(images, digits.train.labels, digits.train.class_names), digits.validation, digits.test)


def spoilt_step(splits, epoch=0):
    """The step of the first epoch that has the image, from 0."""
    run = Trainer(CONFIG, splits, Devices.all())
    batches = run.read_batches(epoch * 13, (epoch + 1) * 13)
    return next(i for i, batch in enumerate(batches) if not np.isfinite(batch.images).all())


def finite(tree):
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))


def test_abort_keeps_the_last_finite_checkpoint_and_names_what_it_saw(spoilt, tmp_path):
    run = run_on(spoilt, tmp_path, replace(CONFIG, checkpoint_every=1))
    step = spoilt_step(spoilt)
    with pytest.raises(NonFiniteError, match=rf"at step {step + 1}: loss .*, gradient norm .*, learning rate 0.01"):
        fit(run)
    assert rows(tmp_path)[-1]["step"] <= step + 1
    again = run_on(spoilt, tmp_path, CONFIG)
    assert again.resumed.step == step
    assert finite(again.checkpoints.restore(again.resumed, again.start()).params)
    again.checkpoints.close()


def test_abort_finds_it_within_a_log_interval(spoilt, tmp_path):
    with pytest.raises(NonFiniteError) as error:
        fit(run_on(spoilt, tmp_path, CONFIG))
    assert spoilt_step(spoilt) < error.value.step <= min(spoilt_step(spoilt) // 5 * 5 + 5, 13)
    last = rows(tmp_path)[-1]
    assert (last["step"], last["loss"]) == (error.value.step, None)


def test_a_skipped_update_changes_nothing_but_the_step(spoilt):
    run = Trainer(replace(CONFIG, non_finite="skip"), spoilt, Devices.all())
    state = run.start()
    for i, batch in enumerate(run.read_batches(0, 13)):
        before = jax.tree.map(np.array, jax.device_get(state))
        state = run.train_step(state, batch, 1)
        if i == spoilt_step(spoilt):
            assert_same_bytes(jax.device_get(state), before.replace(step=before.step + 1))
    assert finite(state)


@pytest.mark.parametrize("policy", ["skip", "rollback"])
def test_what_is_left_out_is_counted_and_the_run_ends_finite_and_resumes(policy, spoilt, tmp_path, capsys):
    config = replace(CONFIG, non_finite=policy)
    run = run_on(spoilt, tmp_path / "whole", config)
    state = fit(run)
    assert finite(state.params)
    assert math.isfinite(run.progress.latest["validation"]["loss"])
    steps = 1 if policy == "skip" else 13  # of an epoch, at most
    assert 3 * 11 <= run.progress.images_left_out <= 3 * steps * 16
    assert (policy == "rollback") == ("rolled back to the last checkpoint" in capsys.readouterr().err)
    assert fit(run_on(spoilt, tmp_path / "stopped", config, stop=at_call(17))) is None
    resumed = run_on(spoilt, tmp_path / "stopped", config)
    assert_same_bytes(fit(resumed), state)
    assert resumed.progress.images_left_out == run.progress.images_left_out
    assert rows(tmp_path / "stopped") == rows(tmp_path / "whole")


def test_an_interval_without_any_update_is_no_error(spoilt, tmp_path):
    run = run_on(spoilt, tmp_path, replace(CONFIG, non_finite="skip", log_every=1))
    assert finite(fit(run).params)
    losses = [row["loss"] for row in rows(tmp_path) if row["period"] == "interval"]
    assert losses.count(None) == 3 == len(losses) - 36


def test_skipping_changes_nothing_where_all_is_finite(digits, tmp_path):
    plain, skipping = (
        fit(run_on(digits, tmp_path / name, replace(CONFIG, non_finite=name))) for name in ("abort", "skip")
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), plain.params, skipping.params)
    assert jnp.int32(39) == plain.step == skipping.step


def test_a_run_in_which_nothing_is_finite_ends_where_it_began_and_its_seconds_count(digits, tmp_path):
    run = run_on(digits, tmp_path, replace(CONFIG, optimizer=Adam(learning_rate=1e30), non_finite="rollback", epochs=1))
    initial = jax.device_get(run.start())
    final = fit(run)
    assert_same_bytes(final.params, initial.params)
    assert run.progress.steps_done == 13
    assert run.progress.train_seconds > 0
    assert run.progress.images_left_out == 203


def test_a_rollback_to_variables_that_are_not_finite_ends_the_run(digits, capsys):
    class Once(Callback):
        called = False

        def on_rollback(self, trainer):
            assert not self.called
            self.called = True

    config = replace(CONFIG, non_finite="rollback")
    variables = jax.device_get(get_variables(Trainer(config, digits).start()))
    variables["params"]["logits"]["bias"] = np.full(10, np.nan, np.float32)
    run = Trainer(config, digits, callbacks=[Once()], init=variables)
    with pytest.raises(NonFiniteError, match="at step 5: loss nan"), closing(run):
        run.fit()
    assert "rolled back" not in capsys.readouterr().err
