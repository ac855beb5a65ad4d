"""Runs kept in a directory, stopped where a test likes, and what they wrote."""

import json
from contextlib import closing
from itertools import count

import jax
import numpy as np

from jaxclf.training.callbacks import Callback, RecordWriters
from jaxclf.training.checkpoint import Checkpoints
from jaxclf.training.trainer import Interrupted, Trainer
from jaxclf.training.writers import Jsonl, RunInfo

CLOCK = ("images_per_second", "data_wait_seconds")


class Stop(Callback):
    """Interrupts training by signal 15 where `wanted` says so; it is asked where a signal would be looked for."""

    def __init__(self, wanted):
        self.wanted = wanted

    def on_ready(self, trainer):
        trainer.interrupted = 15 if self.wanted(trainer) else 0

    def on_step_end(self, trainer, steps):
        self.on_ready(trainer)

    def on_batch_evaluated(self, trainer):
        self.on_ready(trainer)


def run_on(splits, path, config, devices=None, stop=None, callbacks=()):
    """A run kept under `path`, which goes on from what is there."""
    path.mkdir(exist_ok=True)
    checkpoints = Checkpoints(path / "checkpoints", writing=True)
    callbacks = [*callbacks, Stop(stop)] if stop else callbacks
    run = Trainer(config, splits, devices, checkpoints, callbacks)
    before = rows(path)[: run.resumed.notes["rows"]] if run.resumed else ()
    run.add_callbacks(RecordWriters([Jsonl()], RunInfo(path, {}, before)))
    return run


def fit(run):
    """Train to the end, or until it stops: the state, or None."""
    try:
        with closing(run):
            return jax.device_get(run.fit())
    except Interrupted:
        return None
    finally:
        run.checkpoints.close()


def at_call(number):
    """What says to stop at one time of asking: between two executions, or two batches of evaluation."""
    calls = count(1)
    return lambda trainer: next(calls) == number


def at_step(number):
    """What says to stop after a step."""
    return lambda trainer: trainer.progress.steps_done == number


def rows(path):
    """The rows of metrics.jsonl without what depends on the clock."""
    file = path / "metrics.jsonl"
    lines = file.read_text().splitlines() if file.exists() else ()
    return [{name: value for name, value in json.loads(line).items() if name not in CLOCK} for line in lines]


def assert_same_bytes(state, other):
    jax.tree.map(np.testing.assert_array_equal, state, other)  # which shows where they differ
    ours, theirs = (jax.tree.map(lambda x: (x.dtype, np.asarray(x).tobytes()), tree) for tree in (state, other))
    assert ours == theirs
