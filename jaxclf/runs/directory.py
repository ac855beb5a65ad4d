"""The run directory: the files of a run, by name."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxclf.config_io import find_differences
from jaxclf.errors import UserError, require
from jaxclf.io.files import read_json, write_json
from jaxclf.io.lock import check_free, lock_directory
from jaxclf.runs.environment import describe_environment
from jaxclf.training.distributed import all_processes_agree, is_main_process

DISK_DELAY = 60.0  # seconds until a file of one machine is seen by another
BUSY = ("another training run", "wait for it to end, or name another --workdir")  # for the error message


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
        """Return whether the directory holds a finished run of a config.

        Args:
            config: The config as JSON data.
            force: Accept a run of another config, which is then resumed with this one.

        Raises:
            UserError: If it holds a run of another config, is in use by another process, or is a file.
        """
        require(not self.path.exists() or self.path.is_dir(), f"{self.path} is a file; name a directory with --workdir")
        if is_main_process():
            check_free(self.path, *BUSY)
        changed = find_differences(read_json(self.config), config) if self.config.exists() else []
        if changed and not force:
            raise UserError(
                f"{self.path} holds a run of another config; name another --workdir, undo the difference, or resume it "
                "with --resume force:",
                changed,
            )
        return self.summary.exists() and not changed

    @contextmanager
    def hold(self, config: Any) -> Iterator[None]:
        """Lock the directory, which is created if it is missing, and write the config and the environment."""
        with lock_directory(self.path, *BUSY):
            self.summary.unlink(missing_ok=True)  # with another config the run is not finished
            write_json(self.environment, describe_environment())
            write_json(self.config, config)
            yield

    def check_shared(self, step: int) -> None:
        """Raise UserError, in every process, unless all processes see the same files."""
        until = time.monotonic() + DISK_DELAY
        while not self.config.exists() and time.monotonic() < until:
            time.sleep(1)
        require(
            all_processes_agree(step if self.config.exists() else -1),
            f"the processes see different files in {self.path}; name a --workdir on a disk that all of them share",
        )


def read_metrics(directory: RunDirectory) -> list[dict[str, Any]]:
    """Return the readable rows of metrics.jsonl."""
    rows = []
    for line in directory.metrics.read_bytes().splitlines() if directory.metrics.exists() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue  # an interrupted run may leave a partial line
        if isinstance(row, dict) and {"split", "period", "epoch"} <= row.keys():
            rows.append(row)
    return rows
