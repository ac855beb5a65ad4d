"""Training steps on a few digits, on one device and on several."""

from functools import partial

import jax
import numpy as np

from jaxclf.augment import Shift
from jaxclf.losses import CrossEntropy
from jaxclf.metrics import Accuracy
from jaxclf.models import Cnn
from jaxclf.optimizers import Sgd
from jaxclf.training.devices import AXIS, Devices
from jaxclf.training.pipeline import read_train_batches
from jaxclf.training.step_config import StepConfig

STEPS, BATCH = 20, 16
STEP_CONFIG = StepConfig(
    Cnn(features=(3, 4), dense=(8,), classes=10, dropout=0.3),
    CrossEntropy(),
    (Accuracy(),),
    Sgd(learning_rate=0.1, momentum=0.9).build(STEPS),
    augment=(Shift(2),),
)


def read_batches(digits):
    """Of 203 images: the last of 13 batches is padded."""
    return list(read_train_batches(digits.train, batch_size=BATCH, remainder="pad", seed=0, start=0, stop=STEPS))


def add_weights(batches, random):
    """Give each example a loss weight."""
    return [batch._replace(weights=random.uniform(0, 2, len(batch.mask)).astype(np.float32)) for batch in batches]


def make_devices(count, parallel="jit"):
    mesh = jax.make_mesh((count,), (AXIS,), Devices.all().mesh.axis_types, devices=jax.devices()[:count])
    return Devices(mesh, parallel)


def fit(step_config, batches, on=None):
    on = on or make_devices(1)
    state = on.create_state(step_config, batches[0])
    step = on.compile_train_step(step_config, state, batches[0])
    for batch in batches:
        state = step(state, jax.tree.map(lambda x: x[None], batch), 1)
    return jax.device_get(state)


def assert_same(a, b, atol=1e-5):
    jax.tree.map(partial(np.testing.assert_allclose, atol=atol, rtol=0), a, b)
