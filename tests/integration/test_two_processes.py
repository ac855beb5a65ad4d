"""Fault tolerance with two processes: one saves, and both stay in step whatever happens."""

import json
import shutil

import pytest
from support.noise_run import ARGUMENTS, CONFIG, assert_same, steps
from support.processes import find_free_port, wait_for_all


@pytest.fixture(scope="module")
def begin(start, tmp_path_factory):
    """Start both processes of a run; `alone` is the environment of one of them."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "noise.py").write_text(CONFIG)

    def begin(run, *flags, alone=(None, {}), **both):
        port = find_free_port()
        others = ("--coordinator", f"localhost:{port}", "--num-processes", 2, "--process-id")
        return [
            start(
                "-u", *ARGUMENTS, "--workdir", run, *flags, *others, i,
                cwd=folder, RUN=str(run), **both, **(alone[1] if alone[0] == i else {}),
            )
            for i in range(2)
        ]  # fmt: skip

    return begin


@pytest.fixture(scope="module")
def train(begin):
    """Train to the end; return the exit codes, the output of process 0, and the errors of both."""

    def train(run, *flags, **what):
        processes = begin(run, *flags, **what)
        printed = wait_for_all(processes)
        return [process.returncode for process in processes], printed[0][0], [errors for _, errors in printed]

    return train


@pytest.fixture(scope="module")
def whole(train, tmp_path_factory):
    """The uninterrupted run."""
    run = tmp_path_factory.mktemp("whole") / "run"
    codes, _, errors = train(run)
    assert (codes, errors) == ([0, 0], ["", ""])
    return run


def find_checkpoints(run):
    return list((run / "checkpoints").glob("[0-9]*"))


def test_a_killed_and_damaged_run_ends_with_the_same_bytes(begin, train, whole, tmp_path, random):
    """Both are killed at random moments, once with two checkpoints, then the newest checkpoint is damaged."""
    run = tmp_path / "run"
    for expected in (0, 2):
        processes, lines = begin(run, PAUSE="0.2"), int(random.integers(1, 4))
        for line in processes[0].stdout:
            lines -= line.startswith("step")
            if lines <= 0 and len(find_checkpoints(run)) >= expected:
                break
        before = steps(run)
        for process in processes:
            process.kill()
        wait_for_all(processes)
        assert steps(run) >= before
    newest = steps(run)
    assert len(find_checkpoints(run)) > 1
    (run / f"checkpoints/{newest}/manifest.json").write_text("{}")
    codes, printed, errors = train(run)
    assert codes == [0, 0], errors
    assert f"{newest}/manifest.json: not as it was written" in errors[0]
    assert errors[1] == ""
    assert "resuming from step" in printed
    assert_same(run, whole)


def test_a_full_disk_of_one_ends_both_and_keeps_the_checkpoints(train, tmp_path):
    run, wide = tmp_path / "run", {"WIDTH": "20000", "ONLY_EPOCHS": "2"}
    codes, _, errors = train(run, PHASE="validation", AT="2", **wide)
    assert codes == [143, 143], errors
    assert steps(run) == 12
    codes, _, errors = train(run, alone=(0, {"LIMIT": "500000"}), **wide)
    assert codes[0] == 2, errors
    assert codes[1] != 0
    assert "File too large; saved checkpoints: 10, 12" in errors[0]
    assert steps(run) == 12


@pytest.mark.parametrize(("policy", "code"), [("abort", 3), ("rollback", 0)])
def test_non_finite_training_is_handled_by_both(policy, code, train, tmp_path):
    run = tmp_path / "run"
    codes, _, errors = train(run, "--optimizer.learning-rate", "1e30", "--non-finite", policy, ONLY_EPOCHS="1")
    assert codes == [code, code], errors
    assert "training is no longer finite at step" in errors[0]
    if policy == "rollback":
        assert json.loads((run / "summary.json").read_text())["images_left_out"] > 0


def test_a_second_training_of_a_run_is_refused(begin, train, whole, tmp_path):
    run = tmp_path / "run"
    processes = begin(run, PAUSE="0.3")
    for line in processes[0].stdout:
        if line.startswith("step"):
            break
    codes, _, errors = train(run)
    assert codes[0] == 2, errors
    assert codes[1] != 0
    assert "is in use by another training run (process " in errors[0]
    for process in processes:
        process.kill()
    wait_for_all(processes)
    shutil.rmtree(run)
