"""Traces of some steps."""

import gzip
import json
import statistics
from collections import Counter
from dataclasses import replace

import jax
import pytest
from test_loop import CONFIG

from jaxclf.errors import UserError
from jaxclf.training.devices import Devices
from jaxclf.training.profiling import Profiler, steps_to_profile
from jaxclf.training.trainer import Trainer


def operations(folder):
    """How often each operation ran in the only trace of a folder."""
    (trace,) = folder.glob("plugins/profile/*/*.trace.json.gz")
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    return Counter(event["args"]["hlo_op"] for event in events if "hlo_op" in event.get("args", {}))


def test_the_steps_asked_for_are_traced_and_no_others(digits, tmp_path):
    one_device = Devices(jax.make_mesh((1,), ("data",), devices=jax.devices()[:1]))
    config = replace(CONFIG, epochs=1, steps_per_execution=2)
    Trainer(config, digits, one_device, profiler=Profiler(tmp_path, 4, 8)).fit()
    assert statistics.mode(operations(tmp_path).values()) == 4


def test_calls_are_traced_whole(digits, tmp_path):
    one_device = Devices(jax.make_mesh((1,), ("data",), devices=jax.devices()[:1]))
    config = replace(CONFIG, epochs=1, steps_per_execution=5)
    Trainer(config, digits, one_device, profiler=Profiler(tmp_path, 6, 7)).fit()
    assert statistics.mode(operations(tmp_path).values()) == 5


def test_a_run_that_ends_early_leaves_its_trace(digits, tmp_path):
    def stop(step, epoch):
        if step == 6:
            raise KeyboardInterrupt

    profiler = Profiler(tmp_path, 2, 13)
    run = Trainer(replace(CONFIG, epochs=1), digits, Devices.all(), on_step=stop, profiler=profiler)
    with pytest.raises(KeyboardInterrupt):
        run.fit()
    profiler.close()
    assert operations(tmp_path)
    profiler.close()  # once more does nothing


@pytest.mark.parametrize("text", ["7", "7:", "a:b", "5:5", "9:5", "0:101", "-1:5"])
def test_steps_that_a_run_does_not_have_are_refused(text):
    with pytest.raises(UserError, match=f"--profile {text}: expected START"):
        steps_to_profile(text, 100)


def test_steps_are_counted_from_0():
    assert steps_to_profile("0:100", 100) == (0, 100)
