"""Runs kept in a directory, stopped where a test likes, and what they wrote."""

import json
from itertools import count

import jax
import numpy as np

from jaxclf.training.checkpoint import Checkpoints
from jaxclf.training.devices import Devices
from jaxclf.training.trainer import Stopped, Trainer
from jaxclf.training.writers import Jsonl

CLOCK = ("images_per_second", "data_wait_seconds")


def run_on(splits, path, config, devices=None, stop=lambda: 0):
    """A run kept under `path`, which goes on from what is there."""
    path.mkdir(exist_ok=True)
    checkpoints = Checkpoints(path / "checkpoints", writing=True)
    run = Trainer(config, splits, devices or Devices.all(), checkpoints, stop=stop)
    jsonl = Jsonl(path / "metrics.jsonl", run.resumed.notes["rows"] if run.resumed else 0)
    run.write, run.rows = jsonl, lambda: jsonl.rows
    return run


def fit(run):
    """Train to the end, or until it stops: the state, or None."""
    try:
        return jax.device_get(run.fit())
    except Stopped:
        return None
    finally:
        run.checkpoints.close()


def at_call(number):
    """What says to stop at one time of asking: between two executions, or two batches of evaluation."""
    calls = count(1)
    return lambda: next(calls) == number


def rows(path):
    """The rows of metrics.jsonl without what depends on the clock."""
    lines = (path / "metrics.jsonl").read_text().splitlines()
    return [{name: value for name, value in json.loads(line).items() if name not in CLOCK} for line in lines]


def assert_same_bytes(state, other):
    jax.tree.map(np.testing.assert_array_equal, state, other)  # which shows where they differ
    ours, theirs = (jax.tree.map(lambda x: (x.dtype, np.asarray(x).tobytes()), tree) for tree in (state, other))
    assert ours == theirs
