"""MLflow and Weights & Biases: a run of the command is read back, before and after it resumes."""

import json
import struct
import sys
from contextlib import closing, suppress
from types import SimpleNamespace

import pytest
from support.cli import train

from jaxclf.errors import Interrupted, NonFiniteError, UserError
from jaxclf.training.callbacks import RecordWriters
from jaxclf.training.writers import Mlflow, RunInfo, Wandb

CONFIG = ("mnist_linear", "--epochs", "1", "--log-every", "100", "--no-evaluate-train")
OWN = """
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Lines:
    def open(self, run, step):
        self.file = (run.directory / "lines.txt").open("a")
        print("open", run.name, step, run.config["epochs"], file=self.file)

    def __call__(self, record):
        print(record.split, record.period, record.step, file=self.file)

    def close(self):
        print("close", file=self.file)
        self.file.close()
"""


def rows(path):
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def read_log(content):
    """The entries of a log in LevelDB's format: blocks of 32 KiB; a part has a checksum, its length and its kind."""
    place, entry = 7, b""
    while place < len(content):
        left = 32_768 - place % 32_768
        if left < 7:
            place += left
            continue
        length, kind = struct.unpack("<HB", content[place + 4 : place + 7])
        entry += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield entry
            entry = b""


def read_items(items):
    """Items by name; those of a config and of metrics have the same form."""
    return {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's, of SQLAlchemy 2.1
def test_mlflow_keeps_metrics_parameters_and_the_report(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    run = tmp_path / "runs/a"
    for epochs in ("1", "2"):  # the second resumes with another config
        assert train([*CONFIG, "--epochs", epochs, "--workdir", run, "--writers", "mlflow", "--resume", "force"]) == 0
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'runs/mlflow.db'}")
    experiment = client.get_experiment_by_name("jaxclf")
    (found,) = client.search_runs([experiment.experiment_id])  # the one before is deleted
    assert (found.info.status, found.info.run_name) == ("FINISHED", "a")
    assert found.data.params["epochs"] == "2"
    assert found.data.params["optimizer.class"] == "jaxclf.optimizers.adam.Adam"
    expected = {row["step"]: row["loss"] for row in rows(run) if row["period"] == "interval"}
    history = client.get_metric_history(found.info.run_id, "train/loss")
    assert {metric.step: metric.value for metric in history} == expected
    assert len(history) == len(expected)
    accuracy = [row["accuracy"] for row in rows(run) if row["split"] == "test"]
    assert [metric.value for metric in client.get_metric_history(found.info.run_id, "test/accuracy")] == accuracy
    (report,) = client.list_artifacts(found.info.run_id)
    assert report.path == "report.html"
    assert (tmp_path / f"runs/mlartifacts/{found.info.run_id}/artifacts/report.html").read_bytes() == (
        run / "report.html"
    ).read_bytes()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'other.db'}")  # where that run is unknown
    assert train([*CONFIG, "--epochs", "3", "--workdir", run, "--writers", "mlflow", "--resume", "force"]) == 0


ENDS = [
    (None, "FINISHED", 0),
    (NonFiniteError(5, 1e30, 1e30, 0.1), "FAILED", 1),
    (UserError("out of memory"), "FAILED", 1),
    (OSError("the disk is full"), "FAILED", 1),
    (Interrupted(2, 5), "KILLED", 1),
    (KeyboardInterrupt(), "KILLED", 1),
]


def end_run(writer, directory, error):
    """Close a writer as a run does that ends with an error, or with none; it is begun while another one is handled."""
    writers = RecordWriters([writer], RunInfo(directory, {}))
    try:
        raise RuntimeError("another run has failed")
    except RuntimeError:
        with suppress(BaseException), closing(writers):
            writers.on_ready(SimpleNamespace(resumed=None))
            if error:
                raise error from None


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's, of SQLAlchemy 2.1
def test_mlflow_says_how_a_run_ended(tmp_path):
    mlflow = pytest.importorskip("mlflow")
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    for error, status, _ in ENDS:
        directory = tmp_path / type(error).__name__
        directory.mkdir()
        end_run(Mlflow(), directory, error)
        run_id = json.loads((directory / "mlflow.json").read_text())["run_id"]
        assert client.get_run(run_id).info.status == status


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_mlflow_has_a_run_that_is_not_finite_as_failed(tmp_path):
    mlflow = pytest.importorskip("mlflow")
    diverging = ("--optimizer.learning-rate", "1e38", "--workdir", tmp_path / "a", "--writers", "mlflow")
    assert train([*CONFIG, *diverging]) == 3
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert client.get_run(json.loads((tmp_path / "a/mlflow.json").read_text())["run_id"]).info.status == "FAILED"


def test_wandb_gets_an_exit_code(tmp_path, monkeypatch):
    codes = []
    run = SimpleNamespace(finish=lambda exit_code: codes.append(exit_code))
    fake = SimpleNamespace(init=lambda **_: run, Settings=lambda **_: None)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for error, _, _ in ENDS:
        end_run(Wandb(), tmp_path, error)
    assert codes == [code for _, _, code in ENDS]


def test_wandb_keeps_metrics_parameters_and_the_report_offline(tmp_path):
    pytest.importorskip("wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    run = tmp_path / "a"
    assert train([*CONFIG, "--workdir", run, "--writers", "wandb"]) == 0
    (file,) = run.glob("wandb/offline-run-*/run-*.wandb")
    records = [Record.FromString(data) for data in read_log(file.read_bytes())]
    history = [read_items(record.history.item) for record in records if record.HasField("history")]
    losses = {row["_step"]: row["train/loss"] for row in history if "train/loss" in row}
    assert losses == {row["step"]: row["loss"] for row in rows(run) if row["period"] == "interval"}
    (config,) = (record.run.config for record in records if record.HasField("run"))
    given = read_items(config.update)
    assert given["epochs"] == 1
    assert any("report.html" in str(record) for record in records)


def test_a_writer_of_your_own_comes_by_import(tmp_path, monkeypatch):
    (tmp_path / "my_writers.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    assert train([*CONFIG, "--workdir", "run", "--import", "my_writers", "--writers", "jsonl", "lines"]) == 0
    lines = (tmp_path / "run/lines.txt").read_text().splitlines()
    assert (lines[0], lines[-1]) == ("open run 0 1", "close")
    assert "train interval 100" in lines
    assert not (tmp_path / "run/tensorboard").exists()
    # Writers are options of a run, not of its config: others do not refuse it.
    assert train([*CONFIG, "--workdir", "run", "--writers", "tensorboard"]) == 0


def test_an_unknown_writer_is_named_with_the_known_ones(tmp_path, capsys):
    assert train([*CONFIG, "--workdir", tmp_path / "run", "--writers", "csv"]) == 2
    assert "--writers csv: expected some of jsonl, tensorboard, mlflow, wandb" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
