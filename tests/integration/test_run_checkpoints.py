"""Checkpoints of whole runs."""

import jax
import numpy as np
import pytest

from jaxclf.config import Config
from jaxclf.datasets import Mnist
from jaxclf.errors import UserError
from jaxclf.models import Mlp
from jaxclf.optimizers import Adam
from jaxclf.training.checkpoint import Checkpoints
from jaxclf.training.devices import Devices
from jaxclf.training.trainer import Trainer


def trainer(digits, features=(12,)):
    config = Config(Mnist(), Mlp(features=features, classes=10), Adam(learning_rate=0.01), epochs=1, batch_size=16)
    return Trainer(config, digits, Devices.all())


def test_a_checkpoint_is_of_the_state_when_it_was_saved(digits, tmp_path):
    # The step is given the state's memory while Orbax writes in the background.
    run = trainer(digits)
    state, checkpoints, batches = run.start(), Checkpoints(tmp_path), list(run.read_batches(0, 12))
    state = run.train_step(state, batches[0], 1)
    expected = jax.tree.map(np.array, jax.device_get(state))
    checkpoints.save(1, state, {}, {})
    for batch in batches[1:]:
        state = run.train_step(state, batch, 1)
    checkpoints.close()
    again = Checkpoints(tmp_path)
    restored = again.restore(again.find("1"), state)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(restored), expected)
    again.close()


def test_a_checkpoint_of_another_network_is_refused_with_the_difference(digits, tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, trainer(digits).start(), {}, {})
    checkpoints.wait()
    with pytest.raises(UserError, match=r"step 1 .* of another network or optimizer") as error:
        checkpoints.restore(checkpoints.find("1"), trainer(digits, (13, 11)).start())
    checkpoints.close()
    items = "\n".join(error.value.items)
    assert """.params['dense1']['kernel']: "float32[784, 12]" -> "float32[784, 13]\"""" in items  # reshaped
    assert """.params['dense2']['kernel']: "(absent)" -> "float32[13, 11]\"""" in items  # missing
