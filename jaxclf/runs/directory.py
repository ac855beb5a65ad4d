"""The run directory: the files of a run, by name."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxclf.config_io import find_differences, from_json, to_json
from jaxclf.datasets import Dataset, load_splits
from jaxclf.datasets.split_table import read_records, write_records
from jaxclf.errors import UserError, require
from jaxclf.io.files import read_json, write_json
from jaxclf.io.lock import NAME, check_free, lock_directory
from jaxclf.optimizers.groups import Assignments, write_assignments
from jaxclf.runs.environment import describe_environment
from jaxclf.training.callbacks import Callback
from jaxclf.training.distributed import all_processes_agree, is_main_process
from jaxclf.types import Splits

if TYPE_CHECKING:
    from jaxclf.training.trainer import Trainer

DISK_DELAY = 60.0  # seconds until a file of one machine is seen by another
NO_EFFECT = ("eval_batch_size",)  # fields of a config that change no result
SPLIT_FIELDS = (
    "splits", "train_fraction", "test_fraction", "validation_fraction", "folds", "fold", "subset", "seed", "min_images",
)  # fmt: skip
# Fields that cannot change in a run: its position in an epoch is counted in steps, and its splits are recorded.
FIXED = ("batch_size", "remainder", *(f"dataset.{name}" for name in SPLIT_FIELDS))
BUSY = ("another training run", "wait for it to end, or name another --workdir")  # for the error message


class RunDirectory:
    """The files of one run, by name."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.config = self.path / "config.json"
        self.environment = self.path / "environment.json"
        self.metrics = self.path / "metrics.jsonl"
        self.summary = self.path / "summary.json"
        self.splits = self.path / "splits.csv"
        self.parameters = self.path / "parameters.csv"
        self.checkpoints = self.path / "checkpoints"
        self.profile = self.path / "profile"

    def check(self, config: Any, force: bool = False) -> bool:
        """Return whether the directory holds a finished run of a config.

        Args:
            config: The config as JSON data.
            force: Accept a run of another config, which is then resumed with this one.

        Raises:
            UserError: If it holds a run of another config, is in use by another process, or is a file; also, with
                `force`, if the steps or the splits of that run are others.
        """
        require(not self.path.exists() or self.path.is_dir(), f"{self.path} is a file; name a directory with --workdir")
        if is_main_process():
            check_free(self.path, *BUSY)
        saved = self.has_checkpoints  # without one there is nothing to resume
        changed = self.find_differences(config) if self.config.exists() and (saved or self.summary.exists()) else []
        if changed and not force:
            raise UserError(
                f"{self.path} holds a run of another config; name another --workdir, undo the difference, or resume it "
                "with --resume force:",
                changed,
            )
        fixed = [line for line in changed if line.split(":")[0] in FIXED]
        if fixed and saved:
            raise UserError(
                f"{self.path} cannot be resumed with other steps or splits, which its position in an epoch depends on; "
                "undo the difference, or name another --workdir:",
                fixed,
            )
        return self.summary.exists() and not changed

    @property
    def has_checkpoints(self) -> bool:
        """Whether a checkpoint has been saved."""
        return any(self.checkpoints.glob("[0-9]*"))

    def load_splits(self, dataset: Dataset | None) -> Splits:
        """Load the data to train on: where a run resumes, the files it began with in the splits they had."""
        return load_splits(dataset, read_records(self.splits) if self.has_checkpoints else (), exact=True)

    def load_recorded_splits(self, dataset: Dataset | None) -> Splits:
        """Load the data of a trained run; files it has recorded keep the splits they had."""
        environment = read_json(self.environment) if self.environment.exists() else {}
        return load_splits(dataset, read_records(self.splits), started_in=environment.get("directory", ""))

    def find_differences(self, config: Any) -> list[str]:
        """Compare the config of the run with another; return a line for each difference that changes results."""
        old = read_json(self.config)
        with suppress(UserError):  # classes of the user's own
            old = to_json(from_json(old))  # with the fields that earlier versions did not have
        return find_differences(*({**each, **dict.fromkeys(NO_EFFECT)} for each in (old, config)))

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Lock the directory, which is created if it is missing, and removed if nothing is written to it."""
        with lock_directory(self.path, *BUSY):
            try:
                yield
            finally:
                if [each.name for each in self.path.iterdir()] == [NAME]:
                    shutil.rmtree(self.path, ignore_errors=True)

    def begin(self, config: Any, splits: Splits, assignments: Assignments) -> None:
        """Write what identifies a run that begins or resumes.

        Args:
            config: The config as JSON data.
            splits: The images; which file is in which split is written where the dataset has files.
            assignments: What the optimizer does with each parameter; written unless it is empty.
        """
        self.summary.unlink(missing_ok=True)  # with another config the run is not finished
        write_json(self.environment, describe_environment())
        write_json(self.config, config)
        if splits.files:
            write_records(self.splits, splits.files)
        if assignments:
            write_assignments(self.parameters, assignments)

    def check_shared(self, step: int) -> None:
        """Raise UserError, in every process, unless all processes see the same files."""
        until = time.monotonic() + DISK_DELAY
        lock = self.path / NAME
        while not lock.exists() and time.monotonic() < until:
            time.sleep(1)
        require(
            all_processes_agree(step if lock.exists() else -1),
            f"the processes see different files in {self.path}; name a --workdir on a disk that all of them share",
        )


class BeginRun(Callback):
    """Writes the config when training is ready to start, so that a command that is refused changes no file of a run."""

    def __init__(self, directory: RunDirectory, config: Any):
        self.directory, self.config = directory, config

    def on_ready(self, trainer: Trainer) -> None:
        """Write the files that identify the run."""
        self.directory.begin(self.config, trainer.splits, trainer.assignments)


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
