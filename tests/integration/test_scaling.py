"""Several processes train as one: each reads its share of every batch, and the results are the same."""

import json
import re
import shlex
import shutil
import signal
from pathlib import Path

import jax
import numpy as np
import pytest
from support.cli import train
from support.processes import find_free_port, wait_for_all

import jaxclf
from jaxclf.cli.train_options import parse_train
from jaxclf.errors import UserError
from jaxclf.training.devices import Devices
from jaxclf.training.distributed import Processes, count_slurm_tasks, require_single_process
from jaxclf.training.pipeline import read_eval_batches, read_train_batches
from jaxclf.types import Split

N = 23
SPLIT = Split(np.arange(N, dtype=np.uint8).reshape(N, 1, 1, 1), np.arange(N, dtype=np.int32), ("x",) * N)
PAGE = Path(__file__).parents[2] / "docs/scaling.md"
SHARES = (np.array([0, 1, 6, 7]), np.array([2, 3, 4, 5, 8, 9]))  # of a batch of ten


def training(rows=None):
    return read_train_batches(SPLIT, batch_size=10, remainder="pad", seed=0, start=0, stop=6, rows=rows)


def evaluation(rows=None):
    return read_eval_batches(SPLIT, 10, rows)


@pytest.mark.parametrize("feed", [training, evaluation])
def test_the_shares_of_all_processes_make_up_the_batch(feed):
    places = np.argsort(np.concatenate(SHARES))
    for whole, *parts in zip(feed(), *map(feed, SHARES), strict=True):
        together = jax.tree.map(lambda *arrays: np.concatenate(arrays)[places], *parts)
        jax.tree.map(np.testing.assert_array_equal, whole, together)


def test_one_process_has_every_row():
    np.testing.assert_array_equal(Devices.all().get_local_rows(12), np.arange(12))


FEW_DIGITS = """
from dataclasses import dataclass

from jaxclf.augment import Flip, Mixup, Shift
from jaxclf.config import Config
from jaxclf.datasets import Mnist
from jaxclf.models import Cnn
from jaxclf.optimizers import Adam
from jaxclf.types import Split, Splits


@dataclass(frozen=True)
class Few:
    def load(self):
        splits = Mnist().load()
        few = ((splits.train, 203), (splits.validation, 53), (splits.test, 101))
        return Splits(*(Split(split.images[:n], split.labels[:n], split.class_names) for split, n in few))


def get_config():
    return Config(
        dataset=Few(),
        model=Cnn(features=(4,), dense=(16,), classes=10, dropout=0.2),
        optimizer=Adam(learning_rate=1e-3),
        epochs=2,
        batch_size=16,
        remainder="pad",
        augment=(Shift(), Flip()),
        mixup=Mixup(),
        ema_decay=0.9,
        evaluate_train=True,
        eval_batch_size=40,
        log_every=5,
    )
"""
STEPS = 13  # an epoch, the last with 11 of 16 rows
TRAIN = ("-u", "-m", "jaxclf", "train", "few_digits.py", "--import", "few_digits", "--workdir")
UNOPTIMIZED = "--xla_backend_optimization_level=0"  # compiling is what takes the time
ONE_DEVICE = {"XLA_FLAGS": UNOPTIMIZED}
TWO_DEVICES = {"XLA_FLAGS": f"--xla_force_host_platform_device_count=2 {UNOPTIMIZED}"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scaling")
    (folder / "few_digits.py").write_text(FEW_DIGITS)
    return folder


@pytest.fixture(scope="module")
def one(command, place):
    """The run of one process with one device."""
    done = command(*TRAIN, "one", cwd=place, **ONE_DEVICE)
    assert (done.returncode, done.stderr) == (0, "")
    return place / "one"


@pytest.fixture(scope="module")
def two(start, place):
    """The run of two processes with two devices each, and their output."""
    others = ("--coordinator", f"localhost:{find_free_port()}", "--num-processes", 2, "--process-id")
    processes = [start(*TRAIN, "two", *others, i, cwd=place, **TWO_DEVICES) for i in range(2)]
    printed = wait_for_all(processes)
    assert [process.returncode for process in processes] == [0, 0], printed
    assert [errors for _, errors in printed] == ["", ""]
    return place / "two", [output.splitlines() for output, _ in printed]


def without_last_epoch(run, name):
    """Copy a run in its state after the first epoch."""
    copy = shutil.copytree(run, run.with_name(name))
    shutil.rmtree(copy / f"checkpoints/{2 * STEPS}")
    (copy / "summary.json").unlink()
    return copy


def rows(run):
    """Yield split, period and values of each row of metrics.jsonl, without values measured by the clock."""
    for line in (run / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        label = (row.pop("split"), row.pop("period"))
        yield label, {name: x for name, x in row.items() if name not in ("images_per_second", "data_wait_seconds")}


def assert_same_run(run, other, place, monkeypatch):
    """Compare the parameters to 1e-5, and all metrics."""
    monkeypatch.syspath_prepend(str(place))
    for weights in ("raw", "ema"):
        a, b = (jaxclf.load(path, weights=weights, imports=("few_digits",)) for path in (run, other))
        assert a.step == b.step == 2 * STEPS
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), a.variables, b.variables)
    for (label, found), (expected_label, expected) in zip(rows(run), rows(other), strict=True):
        assert label == expected_label
        assert found == pytest.approx(expected, rel=1e-4)
    found, expected = (json.loads((path / "summary.json").read_text()) for path in (run, other))
    for name in ("train", "train_full", "validation", "test", "best"):
        assert found[name] == pytest.approx(expected[name], rel=1e-4)


def test_two_processes_with_two_devices_each_match_one_process(one, two, place, monkeypatch):
    run, (first, second) = two
    assert_same_run(run, one, place, monkeypatch)
    environment = json.loads((run / "environment.json").read_text())
    assert (environment["processes"], len(environment["devices"])) == (2, 4)
    assert any(line.startswith("Overall accuracy: ") for line in first)
    assert second[1:] == ["2 processes, 4 devices, 2 of them here"]


def test_one_process_resumes_the_run_of_two(command, one, two, place, monkeypatch):
    run = without_last_epoch(two[0], "continued")
    done = command(*TRAIN, run, cwd=place, **ONE_DEVICE)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"resuming from step {STEPS}" in done.stdout
    assert_same_run(run, one, place, monkeypatch)


def test_slurm_is_detected_and_a_dead_process_ends_the_others(start, one, place):
    run = without_last_epoch(one, "killed")
    job = {"SLURM_JOB_ID": str(find_free_port()), "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2"}
    task = [{"SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)} for i in range(2)]
    processes = [start(*TRAIN, run, cwd=place, **TWO_DEVICES, **job, **task[i]) for i in range(2)]
    for line in processes[0].stdout:
        if line.startswith("resuming from step 13"):
            break
    processes[0].kill()
    _, (_, errors) = wait_for_all(processes)
    assert processes[1].returncode not in (0, 2)
    assert "another process has ended" in errors or "another task died" in errors
    assert not (run / "summary.json").exists()


def test_a_signal_to_one_process_stops_all_at_the_same_step(start, place):
    """First to the process that does not write; then, after resuming, to the one that does."""
    run, reached = place / "stopped", []
    for which, number in ((1, signal.SIGTERM), (0, signal.SIGINT)):
        others = ("--coordinator", f"localhost:{find_free_port()}", "--num-processes", 2, "--process-id")
        long = ("--epochs", 10_000)
        processes = [start(*TRAIN, run, *long, *others, i, cwd=place, **TWO_DEVICES) for i in range(2)]
        for line in processes[0].stdout:
            if line.startswith("step"):
                break
        processes[which].send_signal(number)
        (_, errors), _ = wait_for_all(processes)
        assert [process.returncode for process in processes] == [128 + number] * 2, errors
        found = int(re.search(r"stopped at step ([\d,]+); the same command resumes", errors)[1].replace(",", ""))
        assert (run / f"checkpoints/{found}/manifest.json").exists()
        assert [row["step"] for _, row in rows(run)][-1] <= found
        reached.append(found)
    assert reached[1] > reached[0]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--coordinator", "localhost:1"], "give all three, or none"),
        (["--num-processes", "2"], "give all three, or none"),
        (["--coordinator", "a", "--num-processes", "2", "--process-id", "0"], "expected HOST:PORT"),
        (["--coordinator", "a:1", "--num-processes", "2", "--process-id", "2"], "process_id=2: expected 0 to 1"),
        (["--coordinator", "a:1", "--num-processes", "0", "--process-id", "0"], "expected at least 1"),
        (["--coordinator", "auto"], "jax.distributed could not be initialized"),
        (["--coordinate", "a:1"], "did you mean --coordinator?"),
        (["--process", "1"], "did you mean --process-id?"),
    ],
)
def test_invalid_process_options_are_refused(flags, message, capsys):
    assert train(["mnist_linear", *flags]) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert len(printed.splitlines()) <= 5


def test_one_process_is_valid():
    Processes(num_processes=1)
    Processes(coordinator="a:1", num_processes=1, process_id=0)


STEP = {
    "SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "a[1-2]", "SLURM_NTASKS": "4", "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0", "SLURM_STEP_NUM_TASKS": "4",
}  # fmt: skip


@pytest.mark.parametrize(
    ("variables", "tasks"),
    [
        ({}, 1),
        (STEP, 4),
        (STEP | {"SLURM_STEP_NUM_TASKS": "1"}, 1),  # an interactive shell of an allocation for four
        ({name: value for name, value in STEP.items() if name != "SLURM_STEP_NODELIST"}, 1),  # a batch script
        ({name: value for name, value in STEP.items() if name != "SLURM_NTASKS"}, 1),  # a login to a node of a job
    ],
)
def test_tasks_of_slurm(variables, tasks, monkeypatch):
    for name in STEP:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert count_slurm_tasks() == tasks
    if tasks > 1:
        with pytest.raises(UserError, match=r"eval.py runs in one process and SLURM started 4; .*--ntasks=1"):
            require_single_process("eval.py")


def test_the_commands_in_the_docs_parse():
    page = PAGE.read_text().replace("\\\n", " ").replace("CONFIG --workdir …", "mnist_cnn --workdir x")
    page = re.sub(r"\n +--", " --", page).replace("$JOB_COMPLETION_INDEX", "1")
    commands = re.findall(r"jaxclf train (mnist_cnn .*?)[`\n]", page)
    processes = [parse_train(shlex.split(command)).processes for command in commands]
    assert Processes("auto") in processes
    assert {each.process_id for each in processes} == {None, 0, 1}
    assert len(processes) >= 5
