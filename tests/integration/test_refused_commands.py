"""A command that fails changes no file of a run (case F1), and no run resumes with steps of another size (case F2)."""

import json
import shutil

import pytest
from support.cli import evaluate, train


def read_files(run):
    """The content of every file of a run."""
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != ".lock"}


@pytest.fixture
def finished_run(colour_run, tmp_path):
    """A finished run and the command that trained it."""
    run = shutil.copytree(colour_run, tmp_path / "run")
    return run, [colour_run.parent / "colour.py", "--workdir", run]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--ema-decay", "0.9"], "another network or optimizer"),
        (["--optimizer.clip-norm", "1"], "another network or optimizer"),
        (["--dataset.train-fraction", "0.4"], "dataset.train_fraction: 0.5 -> 0.4"),
        (["--dataset.seed", "1"], "dataset.seed: 0 -> 1"),
        (["--batch-size", "4"], "batch_size: 8 -> 4"),
        (["--remainder", "pad"], 'remainder: "drop" -> "pad"'),
        (["--model.classes", "3"], "the model has 3 logits"),
    ],
)
def test_a_refused_command_changes_no_file(changes, message, finished_run, capsys):
    run, command = finished_run
    before = read_files(run)
    assert train([*command, "--epochs", 6, *changes, "--resume", "force"]) == 2
    assert message in capsys.readouterr().err
    assert read_files(run) == before
    assert evaluate([run]) == 0


def test_a_run_resumes_with_what_leaves_its_steps_as_they_are(finished_run):
    run, command = finished_run
    assert train([*command, "--epochs", 6, "--optimizer.learning-rate", "1e-3", "--resume", "force"]) == 0
    assert json.loads((run / "config.json").read_text())["epochs"] == 6
    assert json.loads((run / "summary.json").read_text())["steps"] == 12


def test_the_batch_size_of_evaluation_makes_no_other_run(finished_run, capsys):
    run, command = finished_run
    assert train([*command, "--eval-batch-size", "3"]) == 0
    assert f"{run} is finished" in capsys.readouterr().out


def test_a_run_without_a_checkpoint_is_begun_again_with_another_config(finished_run):
    run, command = finished_run
    shutil.rmtree(run / "checkpoints")
    (run / "summary.json").unlink()
    assert train([*command, "--batch-size", "4"]) == 0
    assert json.loads((run / "config.json").read_text())["batch_size"] == 4


def test_a_run_of_a_version_without_some_fields_resumes(finished_run, capsys):
    run, command = finished_run
    config = json.loads((run / "config.json").read_text())
    for name in ("splits", "validation_fraction"):
        del config["dataset"][name]
    (run / "config.json").write_text(json.dumps(config))
    (run / "splits.csv").unlink()
    assert train([*command, "--epochs", 6]) == 2
    assert [line.strip() for line in capsys.readouterr().err.splitlines()[1:]] == ["epochs: 5 -> 6"]
    assert train([*command, "--epochs", 6, "--resume", "force"]) == 0
    assert (run / "splits.csv").is_file()
