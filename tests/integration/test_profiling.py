"""Traces of some steps."""

import gzip
import json
import statistics
from collections import Counter
from dataclasses import replace

import jax
import pytest
from support.configs import FULL

from jaxclf.errors import UserError
from jaxclf.training.callbacks import Callback
from jaxclf.training.devices import Devices
from jaxclf.training.profiling import Profiler, parse_steps
from jaxclf.training.trainer import Trainer


def operations(folder):
    """How often each operation ran in the only trace of a folder."""
    (trace,) = folder.glob("plugins/profile/*/*.trace.json.gz")
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    return Counter(event["args"]["hlo_op"] for event in events if "hlo_op" in event.get("args", {}))


def test_the_steps_asked_for_are_traced_and_no_others(digits, tmp_path):
    one_device = Devices(jax.make_mesh((1,), ("data",), devices=jax.devices()[:1]))
    config = replace(FULL, epochs=1, steps_per_execution=2)
    Trainer(config, digits, one_device, callbacks=[Profiler(tmp_path, 4, 8)]).fit()
    assert statistics.mode(operations(tmp_path).values()) == 4


def test_calls_are_traced_whole(digits, tmp_path):
    one_device = Devices(jax.make_mesh((1,), ("data",), devices=jax.devices()[:1]))
    config = replace(FULL, epochs=1, steps_per_execution=5)
    Trainer(config, digits, one_device, callbacks=[Profiler(tmp_path, 6, 7)]).fit()
    assert statistics.mode(operations(tmp_path).values()) == 5


def test_a_run_that_ends_early_leaves_its_trace(digits, tmp_path):
    class Stop(Callback):
        def on_step_end(self, trainer, steps):
            if steps.stop == 6:
                raise KeyboardInterrupt

    profiler = Profiler(tmp_path, 2, 13)
    run = Trainer(replace(FULL, epochs=1), digits, Devices.all(), callbacks=[Stop(), profiler])
    with pytest.raises(KeyboardInterrupt):
        run.fit()
    profiler.close()
    assert operations(tmp_path)
    profiler.close()  # once more does nothing


@pytest.mark.parametrize("text", ["7", "7:", "a:b", "5:5", "9:5", "0:101", "-1:5"])
def test_steps_that_a_run_does_not_have_are_refused(text):
    with pytest.raises(UserError, match=f"--profile {text}: expected START"):
        parse_steps(text, 100)


def test_steps_are_counted_from_0():
    assert parse_steps("0:100", 100) == (0, 100)
