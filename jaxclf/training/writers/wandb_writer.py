"""Metrics, the config and the report in Weights & Biases."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import Literal, cast

from jaxclf.errors import UserError
from jaxclf.training.writers.base import RunInfo
from jaxclf.training.writers.record import Artifact, Record, tag_metrics

Mode = Literal["online", "offline", "disabled"]


@dataclass
class Wandb:
    """Writes a Weights & Biases run to `wandb/` in the run directory: offline, unless WANDB_MODE says otherwise.

    Needs the extra `jaxclf[wandb]`; `wandb sync` uploads an offline run. W&B cannot overwrite steps: a run that resumes
    is a new W&B run of the same group, with all metrics.
    """

    project: str = "jaxclf"
    """Name of the W&B project."""

    def open(self, run: RunInfo, step: int) -> None:
        """Create a W&B run with the config, and log the metrics up to `step`."""
        try:
            import wandb  # pyright: ignore[reportMissingImports] - an extra
        except ModuleNotFoundError as error:
            raise UserError("--writers wandb needs Weights & Biases: pip install 'jaxclf[wandb]'") from error
        self._handled = sys.exception()  # such as the failure of another run, after which this one is trained
        self._run = wandb.init(
            project=self.project, group=run.name, name=run.name, dir=run.directory, config=dict(run.config),
            mode=cast(Mode, os.environ.get("WANDB_MODE", "offline")), reinit="create_new",
            settings=wandb.Settings(silent=True, console="off"),
        )  # fmt: skip
        for row in run.rows:
            self._run.log(tag_metrics(row), step=row["step"])

    def __call__(self, record: Record) -> None:
        """Log the numbers and the artifacts of a record."""
        if row := record.to_row():
            self._run.log(tag_metrics(row), step=row["step"])
        for name, value in record.values.items():
            if isinstance(value, Artifact):
                self._run.log_artifact(str(value.path), name=name, type="report")

    def close(self) -> None:
        """End the W&B run, as failed while an exception is handled."""
        self._run.finish(exit_code=int(sys.exception() is not self._handled))
