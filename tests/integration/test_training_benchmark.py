"""benchmarks/training.py: tasks, contenders and the table. The workers of the peers check their own networks."""

import contextlib
import re
import sys
import time
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import itertools

import training
from training_worker import find_fastest, read_task


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("mnist_linear", 7_850),
        ("mnist_mlp", 335_114),
        ("mnist_mlp_wide", 1_192_510),
        ("mnist_cnn", 242_062),
        ("simpsons_cnn", 1_337_296 + 513 * 18),
    ],
)
def test_workers_read_the_task_and_its_data(name, parameters, tmp_path):
    """The task determines the network, and the numbers of parameters are those in the documentation."""
    task, images, labels = training.build_task(name, epochs=1)
    task.write(tmp_path, images, labels)
    read, read_images, read_labels = read_task(tmp_path)
    assert read == task
    np.testing.assert_array_equal(read_images, images)
    np.testing.assert_array_equal(read_labels, labels)
    assert images.dtype == np.uint8
    assert len(images) == len(labels) == training.SLICES[name] * task.batch_size
    assert labels.max() == task.classes - 1
    height, width, channels = task.image_shape
    total = 0
    for filters in task.convolutions:
        total += (task.kernel_size**2 * channels + 1) * filters
        height, width, channels = height // 2, width // 2, filters
    sizes = (height * width * channels, *task.dense, task.classes)
    total += sum((before + 1) * after for before, after in itertools.pairwise(sizes))
    assert total == task.parameters == parameters


def test_the_fastest_setting_is_chosen_after_a_warm_up_of_all():
    calls = []

    def build(name, first, later):
        def train():
            calls.append(name)
            time.sleep(first if calls.count(name) == 1 else later)
            return 0.0

        return lambda: train

    setting, train = find_fastest({"slow": build("slow", 0, 0.05), "compiles": build("compiles", 0.2, 0)})
    assert setting == "compiles"
    train()
    assert calls == ["slow"] * 3 + ["compiles"] * 4


def test_the_table_has_ratios_of_medians_to_each_peer_and_to_the_best():
    keras, torch = training.PEERS[0].name, training.PEERS[3].name
    rates = {
        "a": {"jaxclf": [100, 900, 300], keras: [600, 100, 500], torch: [150]},
        "b": {"jaxclf": [1_000], torch: [800]},
    }
    assert training.build_table(rates).splitlines() == [
        f"| images/s | jaxclf | {keras} | {torch} | ours / best peer |",
        "| --- | --- | --- | --- | --- |",
        "| `a` | 300 | 500 (0.60) | 150 (2.00) | 0.60 |",
        "| `b` | 1,000 |  | 800 (1.25) | 1.25 |",
    ]


def test_a_peer_that_fails_is_skipped_with_its_reason(tmp_path, monkeypatch, capsys):
    broken = training.Contender("Broken", "no_such_script.py", "variant")
    monkeypatch.setattr(training, "PEERS", (broken,))
    with contextlib.ExitStack() as stack:
        assert training.start(broken, sys.executable, tmp_path, stack) is None
    printed = capsys.readouterr().out
    assert printed.startswith("Broken is skipped: exit code 2\n")
    assert "no_such_script.py" in printed


def test_a_peer_runs_with_the_first_interpreter_that_has_its_modules(monkeypatch, capsys):
    here = training.Contender("Here", "", "", ("json", "numpy"))
    nowhere = training.Contender("Nowhere", "", "", ("json", "no_such_module"))
    monkeypatch.setattr(training, "PEERS", (here, nowhere))
    found = training.find_interpreters(["false", sys.executable])
    assert found[here] == sys.executable
    assert nowhere not in found
    assert (
        "Nowhere is skipped: --peer-python needs an interpreter with json and no_such_module" in capsys.readouterr().out
    )


def test_a_missing_interpreter_is_refused_before_anything_starts(command):
    done = command("benchmarks/training.py", "--peer-python", "no/python")
    assert done.returncode == 2
    assert "--peer-python no/python: not found" in done.stderr


def test_without_peers_only_jaxclf_is_timed(command):
    done = command("benchmarks/training.py", "--configs", "mnist_linear", "--repeats", "1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(" is skipped: ") == len(training.PEERS)
    head, _, row = done.stdout.splitlines()[-3:]
    assert head == "| images/s | jaxclf | jaxclf, one batch | ours / best peer |"
    ours, one_batch = re.fullmatch(r"\| `mnist_linear` \| ([\d,]+) \| ([\d,]+) \|  \|", row).groups()
    assert int(ours.replace(",", "")) > 0
    assert int(one_batch.replace(",", "")) > 0
