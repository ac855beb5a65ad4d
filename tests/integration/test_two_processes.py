"""What a run survives, it survives in two processes: one saves, and both do the same, whatever happens."""

import json
import shutil

import pytest
from test_scaling import ends_of, free_port
from test_survival import ARGUMENTS, CONFIG, assert_same, steps

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def begin(start, tmp_path_factory):
    """Start both processes of a run; `alone` is what happens to one of them."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "noise.py").write_text(CONFIG)

    def begin(run, *flags, alone=(None, {}), **both):
        port = free_port()
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
    """Train to the end: the exit codes, what process 0 printed, and the errors of both."""

    def train(run, *flags, **what):
        processes = begin(run, *flags, **what)
        printed = ends_of(processes)
        return [process.returncode for process in processes], printed[0][0], [errors for _, errors in printed]

    return train


@pytest.fixture(scope="module")
def whole(train, tmp_path_factory):
    """The run to which nothing happens."""
    run = tmp_path_factory.mktemp("whole") / "run"
    codes, _, errors = train(run)
    assert (codes, errors) == ([0, 0], ["", ""])
    return run


def test_killed_and_damaged_a_run_ends_as_if_it_had_not_been(begin, train, whole, tmp_path, random):
    """kill -9 of both at random moments; then the newest checkpoint is damaged."""
    run = tmp_path / "run"
    for _ in range(2):
        processes, lines = begin(run, PAUSE="0.2"), int(random.integers(1, 4))
        for line in processes[0].stdout:
            lines -= line.startswith("step")
            if not lines:
                break
        before = steps(run)
        for process in processes:
            process.kill()
        ends_of(processes)
        assert steps(run) >= before
    newest, before = steps(run), len(list((run / "checkpoints").glob("[0-9]*")))
    if before > 1:
        (run / f"checkpoints/{newest}/manifest.json").write_text("{}")
    codes, printed, errors = train(run)
    assert codes == [0, 0], errors
    if before > 1:
        assert f"{newest}/manifest.json" in errors[0]
    assert errors[1] == ""
    assert "going on from step" in printed
    assert_same(run, whole)


def test_a_disk_that_is_full_for_one_ends_both_and_leaves_what_was_there(train, tmp_path):
    run, wide = tmp_path / "run", {"WIDTH": "20000", "ONLY_EPOCHS": "2"}
    codes, _, errors = train(run, PHASE="validation", AT="2", **wide)
    assert codes == [143, 143], errors
    assert steps(run) == 12
    codes, _, errors = train(run, alone=(0, {"LIMIT": "500000"}), **wide)
    assert codes[0] == 2, errors
    assert codes[1] != 0
    assert "File too large; there are the steps 10, 12" in errors[0]
    assert steps(run) == 12


@pytest.mark.parametrize(("policy", "code"), [("abort", 3), ("rollback", 0)])
def test_numbers_that_are_not_finite_are_answered_by_both(policy, code, train, tmp_path):
    run = tmp_path / "run"
    codes, _, errors = train(run, "--optimizer.learning-rate", "1e30", "--non-finite", policy, ONLY_EPOCHS="1")
    assert codes == [code, code], errors
    assert "training is no longer finite at step" in errors[0]
    if policy == "rollback":
        assert json.loads((run / "summary.json").read_text())["images_left_out"] > 0


def test_two_trainings_of_a_run_are_one_too_many(begin, train, whole, tmp_path):
    run = tmp_path / "run"
    processes = begin(run, PAUSE="0.3")
    for line in processes[0].stdout:
        if line.startswith("step"):
            break
    codes, _, errors = train(run)
    assert codes[0] == 2, errors
    assert codes[1] != 0
    assert "another training is at work" in errors[0]
    for process in processes:
        process.kill()
    ends_of(processes)
    shutil.rmtree(run)
