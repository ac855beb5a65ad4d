"""A run on noise that can be paused, killed or starved by environment variables, and what it leaves."""

import jax
import numpy as np
from support.runs import assert_same_bytes, rows

from jaxclf.training.checkpoint import Checkpoints

# A dataset that does what a test asks for when it is read: it knows when the command is in which phase.
CONFIG = """
import os
import resource
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxclf.augment import Shift
from jaxclf.config import Config
from jaxclf.datasets import Dataset
from jaxclf.models import Mlp
from jaxclf.optimizers import Adam
from jaxclf.types import Split, Splits

PHASE, AT, SIGNALS = os.environ.get("PHASE"), int(os.environ.get("AT", 1)), os.environ.get("SIGNALS", "SIGTERM").split()
PAUSE = float(os.environ.get("PAUSE", 0))
ONCE = threading.Lock()


if "LIMIT" in os.environ:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(os.environ["LIMIT"]),) * 2)


def fall():
    for name in SIGNALS:
        os.kill(os.getpid(), getattr(signal, name))
        time.sleep(0.5)
    if "HANG" in os.environ:
        time.sleep(3600)


class Images:
    def __init__(self, phase, images):
        self.phase, self.images, self.reads, self.shape = phase, images, 0, images.shape

    def __getitem__(self, indices):
        if not isinstance(indices, slice):
            self.reads += 1
            time.sleep(PAUSE)
            if self.phase == PHASE and self.reads >= AT and ONCE.acquire(blocking=False):  # threads read side by side
                fall()
        return self.images[indices]


class Falling(Mlp):
    def __call__(self, images, train=False):
        if train and PHASE == "compile":
            fall()
        return super().__call__(images, train)


def watch(folder):
    while not any(folder.glob(".*.partial")):
        time.sleep(0.001)
    fall()


@dataclass(frozen=True)
class Noise(Dataset):
    def load(self):
        random = np.random.default_rng(0)
        made = {}
        for phase, count in (("train", 203), ("validation", 53), ("test", 61)):
            labels = random.integers(0, 3, count, np.int32)
            images = random.integers(0, 180, (count, 6, 6, 1), np.uint8)
            images += 20 * labels[:, None, None, None].astype(np.uint8)
            made[phase] = Split(Images(phase, images), labels, ("a", "b", "c"))
        if PHASE == "load":
            fall()
        if PHASE == "save":
            threading.Thread(target=watch, args=(Path(os.environ["RUN"]) / "checkpoints",), daemon=True).start()
        return Splits(**made)


def get_config():
    return Config(
        dataset=Noise(),
        model=Falling(features=(int(os.environ.get("WIDTH", 8)),), classes=3, dropout=0.2),
        optimizer=Adam(learning_rate=0.01),
        augment=(Shift(1),),
        ema_decay=0.9,
        epochs=int(os.environ.get("ONLY_EPOCHS", 3)),
        batch_size=16,
        eval_batch_size=20,
        log_every=5,
        checkpoint_every=5,
    )
"""
ARGUMENTS = ("-m", "jaxclf", "train", "noise.py", "--import", "noise", "--compilation-cache", "compiled")


def weights(run):
    """The step and the arrays of the last checkpoint, whatever devices had them."""
    import orbax.checkpoint.experimental.v1 as ocp

    checkpoints = Checkpoints(run / "checkpoints")
    step = checkpoints.find("last").step
    checkpoints.close()
    path = str(run.absolute() / f"checkpoints/{step}/state")
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), ocp.metadata(path).metadata)
    return step, jax.tree.map(np.asarray, ocp.load(path, like))


def assert_same(run, other):
    assert rows(run) == rows(other)
    (step, ours), (other_step, theirs) = weights(run), weights(other)
    assert step == other_step
    assert_same_bytes(ours, theirs)


def steps(run):
    """The step of the newest whole checkpoint; 0 without one."""
    newest = Checkpoints(run / "checkpoints").find_newest()
    return newest.step if newest else 0
