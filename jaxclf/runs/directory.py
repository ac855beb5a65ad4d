"""The run directory: the files of a run, by name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxclf.config_io import differences
from jaxclf.errors import UserError, require
from jaxclf.io.files import read_json, write_json
from jaxclf.io.lock import check_free, locked
from jaxclf.runs.environment import environment
from jaxclf.training.distributed import is_main_process

BUSY = ("another training", "wait for it to end, or name another --workdir")  # what is said of a directory in use


class RunDirectory:
    """The files of one run, by name."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.config = self.path / "config.json"
        self.environment = self.path / "environment.json"
        self.metrics = self.path / "metrics.jsonl"
        self.summary = self.path / "summary.json"
        self.checkpoints = self.path / "checkpoints"
        self.tensorboard = self.path / "tensorboard"
        self.profile = self.path / "profile"

    def check(self, config: Any, force: bool = False) -> bool:
        """Whether the directory holds a finished run of this config (as JSON).

        Raises UserError where it holds a run of another config, unless by `force`, or is at work, or is a file.
        """
        require(not self.path.exists() or self.path.is_dir(), f"{self.path} is a file; name a directory with --workdir")
        if is_main_process():
            check_free(self.path, *BUSY)
        changed = differences(read_json(self.config), config) if self.config.exists() else []
        if changed and not force:
            raise UserError(
                f"{self.path} holds a run of another config; name another --workdir, undo the difference, or go on "
                "with it by --resume force:",
                changed,
            )
        return self.summary.exists() and not changed

    @contextmanager
    def begun(self, config: Any) -> Iterator[None]:
        """Hold the directory, which is made where it is not there, and write down what runs in it and on what."""
        with locked(self.path, *BUSY):
            self.summary.unlink(missing_ok=True)  # that of another config, with which it is not finished
            write_json(self.environment, environment())
            write_json(self.config, config)
            yield


def read_metrics(directory: RunDirectory) -> list[dict[str, Any]]:
    """The rows of a run's metrics.jsonl, as far as they can be read."""
    rows = []
    for line in directory.metrics.read_bytes().splitlines() if directory.metrics.exists() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue  # cut by whatever stopped the run
        if isinstance(row, dict) and {"split", "period", "epoch"} <= row.keys():
            rows.append(row)
    return rows
