"""Metrics, the config and the report in MLflow."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from dataclasses import dataclass

from jaxclf.errors import Interrupted, UserError
from jaxclf.io.files import read_json, write_json
from jaxclf.training.writers.base import RunInfo
from jaxclf.training.writers.record import Artifact, Record, tag_metrics


@dataclass
class Mlflow:
    """Writes to an MLflow tracking store: `mlflow.db` beside the run directory, unless MLFLOW_TRACKING_URI is set.

    Needs the extra `jaxclf[mlflow]`. MLflow cannot overwrite metrics: when a run resumes, its MLflow run is deleted and
    its metrics are logged to a new one.
    """

    experiment: str = "jaxclf"
    """Name of the MLflow experiment."""

    def open(self, run: RunInfo, step: int) -> None:
        """Create an MLflow run with the config as parameters, and log the metrics up to `step`."""
        try:
            from mlflow import MlflowClient  # pyright: ignore[reportMissingImports] - an extra
            from mlflow.exceptions import MlflowException  # pyright: ignore[reportMissingImports]
        except ModuleNotFoundError as error:
            raise UserError("--writers mlflow needs MLflow: pip install 'jaxclf[mlflow]'") from error
        logging.getLogger("mlflow").setLevel(logging.WARNING)  # it announces every table it creates
        self._handled = sys.exception()  # such as the failure of another run, after which this one is trained
        parent, noted = run.directory.resolve().parent, run.directory / "mlflow.json"
        self._client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{parent / 'mlflow.db'}"))
        if noted.exists():
            with suppress(MlflowException):  # the run was moved, or its store is another one
                self._client.delete_run(read_json(noted)["run_id"])
        found = self._client.get_experiment_by_name(self.experiment)
        artifacts = (parent / "mlartifacts").as_uri()
        experiment = found.experiment_id if found else self._client.create_experiment(self.experiment, artifacts)
        self._run_id = self._client.create_run(experiment, run_name=run.name).info.run_id
        write_json(noted, {"run_id": self._run_id})
        for name, value in run.config.items():
            self._client.log_param(self._run_id, name, value)
        for row in run.rows:
            self._log(row)

    def __call__(self, record: Record) -> None:
        """Log the numbers and the artifacts of a record."""
        if row := record.to_row():
            self._log(row)
        for value in record.values.values():
            if isinstance(value, Artifact):
                self._client.log_artifact(self._run_id, str(value.path))

    def close(self) -> None:
        """End the MLflow run: FINISHED, KILLED after an interruption, FAILED after any other exception."""
        error = sys.exception()
        status = "KILLED" if isinstance(error, Interrupted | KeyboardInterrupt) else "FAILED"
        self._client.set_terminated(self._run_id, "FINISHED" if error is self._handled else status)

    def _log(self, row) -> None:
        for name, value in tag_metrics(row).items():
            self._client.log_metric(self._run_id, name, value, step=row["step"])
