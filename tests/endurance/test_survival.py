"""The real command, stopped, killed and starved in each phase: it ends as if nothing had happened, or says why."""

import json
import shutil
import signal
import socket
import subprocess
import time

import pytest
from support.noise_run import ARGUMENTS, CONFIG, assert_same, steps
from support.runs import rows

from jaxclf.training.checkpoint import Checkpoints


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the config is, as a user has it."""
    folder = tmp_path_factory.mktemp("survival")
    (folder / "noise.py").write_text(CONFIG)
    return folder


@pytest.fixture(scope="module")
def train(command, folder):
    """Train in a directory, with what is to happen there."""

    def train(run, **what):
        fresh = what.get("PHASE") == "compile"  # when TensorFlow is imported
        return command(*ARGUMENTS, "--workdir", run, cwd=folder, fresh=fresh, RUN=str(run), **what)

    return train


@pytest.fixture(scope="module")
def whole(train, folder):
    """The run to which nothing happens."""
    done = train(folder / "whole")
    assert (done.returncode, done.stderr) == (0, "")
    return folder / "whole"


@pytest.mark.parametrize(
    ("phase", "at", "name", "owed"),
    [
        ("load", 1, "SIGINT", False),
        ("load", 1, "SIGTERM", False),
        ("compile", 1, "SIGTERM", False),
        ("train", 3, "SIGINT", True),
        ("train", 18, "SIGTERM", True),
        ("validation", 2, "SIGINT", True),
        ("validation", 2, "SIGTERM", True),
        ("save", 1, "SIGTERM", True),
        ("test", 2, "SIGINT", True),
    ],
)
def test_a_signal_in_any_phase_is_survived(phase, at, name, owed, train, whole, tmp_path):
    run = tmp_path / "run"
    done = train(run, PHASE=phase, AT=str(at), SIGNALS=name)
    assert done.returncode == 128 + getattr(signal, name)
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 2
    found = Checkpoints(run / "checkpoints").saved
    assert bool(found) == owed
    if phase == "load":  # nothing was begun, and nothing is to go on from
        assert not run.exists()
        return
    if owed:
        assert f"stopped at step {found[-1].step:,}; the same command resumes from there" in done.stderr
    again = train(run)
    assert (again.returncode, again.stderr) == (0, "")
    assert ("resuming from step" in again.stdout) == owed
    assert_same(run, whole)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_second_signal_ends_at_once(name, train, tmp_path):
    """Both come while images are read that never are, and nobody can look for signals."""
    began = time.monotonic()
    done = train(tmp_path / "run", PHASE="train", AT="1", SIGNALS=f"{name} {name}", HANG="1")
    assert done.returncode == 128 + getattr(signal, name)
    assert time.monotonic() - began < 60  # it would hang for an hour
    assert done.stderr == f"{name}: saving a checkpoint, then exiting; Ctrl-C again to force quit\n"


def test_killed_again_and_again_a_run_ends_as_if_it_had_not_been(start, folder, whole, tmp_path, random):
    """kill -9 at random moments behind the first log line of each start: the machine may be slow."""
    run, kills = tmp_path / "run", 0
    while not (run / "summary.json").exists():
        assert kills < 40
        with start("-u", *ARGUMENTS, "--workdir", run, cwd=folder, RUN=str(run), PAUSE="0.4") as process:
            next((line for line in process.stdout if line.startswith("step")), None)
            try:
                _, errors = process.communicate(timeout=random.uniform(0, 5))
                assert (process.returncode, errors) == (0, "")
            except subprocess.TimeoutExpired:
                before = steps(run)
                process.kill()
                process.communicate()
                kills += 1
                assert steps(run) >= before  # no checkpoint that was there is lost
    assert kills >= 2
    assert_same(run, whole)


def test_two_writers_of_a_run_are_one_too_many(start, train, folder, tmp_path):
    run = tmp_path / "run"
    with start("-u", *ARGUMENTS, "--workdir", run, cwd=folder, RUN=str(run), PAUSE="0.2") as first:
        for line in first.stdout:
            if line.startswith("step"):
                break
        second = train(run)
        assert second.returncode == 2
        holder = f"process {first.pid} on {socket.gethostname()}"
        assert second.stderr == (
            f"error: {run} is in use by another training run ({holder}); "
            "wait for it to end, or name another --workdir\n"
        )
        first.kill()
        first.communicate()
    assert train(run).returncode == 0  # a dead process holds nothing


def test_a_changed_config_goes_on_by_force_alone(train, whole, tmp_path, command, folder):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    more = ("--workdir", run, "--epochs", 4)
    refused = command(*ARGUMENTS, *more, cwd=folder)
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[1:] == ["  epochs: 3 -> 4"]
    assert "--resume force" in refused.stderr
    done = command(*ARGUMENTS, *more, "--resume", "force", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert "resuming from step 36" in done.stdout
    assert json.loads((run / "summary.json").read_text())["epochs"] == 4
    assert rows(run)[: len(rows(whole)) - 1] == rows(whole)[:-1]  # but for the test row, which is of the end


def test_a_disk_that_is_full_leaves_what_was_there(train, tmp_path):
    """It goes on where no file can be longer than half a megabyte, which is too short for a checkpoint."""
    run, wide = tmp_path / "run", {"WIDTH": "20000", "ONLY_EPOCHS": "2"}
    assert train(run, PHASE="validation", AT="2", **wide).returncode == 143
    assert steps(run) == 12
    done = train(run, LIMIT="500000", **wide)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: the checkpoint of step ")
    assert line.endswith(f"to {run / 'checkpoints'}: File too large; saved checkpoints: 10, 12")
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["10", "12"]
    assert steps(run) == 12
    again = train(run, **wide)
    assert (again.returncode, again.stderr) == (0, "")
    assert "resuming from step 12" in again.stdout


def test_a_damaged_checkpoint_is_named_and_the_one_before_taken(train, whole, tmp_path, command):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    checkpoints = run / "checkpoints"
    for i in range(5):
        data = sorted(path for path in (checkpoints / "36/state").rglob("*") if path.stat().st_size and path.is_file())
        content = data[i].read_bytes()
        data[i].write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        done = command("-m", "jaxclf", "eval", run, "--import", "noise", cwd=whole.parent)
        assert done.returncode == 0
        assert f"36/{data[i].relative_to(checkpoints / '36')}: " in done.stderr
        data[i].write_bytes(content)
    for path in checkpoints.rglob("manifest.json"):
        path.write_text("{}")
    done = command("-m", "jaxclf", "eval", run, "--import", "noise", cwd=whole.parent)
    assert done.returncode == 2
    assert "all checkpoints in" in done.stderr
