"""Measure the overhead of the training loop around the compiled step: logging and waiting for data.

    python benchmarks/loop_costs.py --repeats 7

Epochs that log as `train.py` does (metrics.jsonl, TensorBoard, a line of text) alternate with epochs that log once, at
their end. Evaluation and checkpoints are excluded. The overhead of logging is the mean over pairs of neighboring epochs
with its 95 % confidence interval. The mean is taken of logarithms: the mean ratio of two equally distributed times is
greater than 1, by 1 % if they vary by 10 %.
"""

import argparse
import io
import math
import statistics
import tempfile
from contextlib import closing, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from jaxclf.config_io import read_config
from jaxclf.reporting.stats import Estimate, estimate
from jaxclf.training.callbacks import Callback, RecordWriters
from jaxclf.training.devices import Devices
from jaxclf.training.progress_bar import ProgressBar
from jaxclf.training.resident import Input
from jaxclf.training.trainer import Trainer
from jaxclf.training.writers import Jsonl, Record, RunInfo, TensorBoard
from jaxclf.types import Split, Splits

LOGGED = (0, 3)  # of each four epochs, so that neither kind always comes first; the first pair is the warm-up
NAMES = ("mnist_linear", "mnist_mlp", "mnist_mlp_wide", "mnist_cnn", "mnist_fast")


class EpochTimer(Callback):
    """Logs as `train.py` does in some epochs and once at the end of the others, and times them."""

    def __init__(self, folder: str):
        self.bar = ProgressBar()
        self.files = RecordWriters([Jsonl(), TensorBoard()], RunInfo(Path(folder), {}))
        self.seconds: list[float] = []
        self.waits: list[float] = []

    @property
    def logs(self) -> bool:
        """Whether the current epoch logs every interval."""
        return len(self.seconds) % 4 in LOGGED

    def on_ready(self, trainer: Trainer) -> None:
        """Open the log files."""
        self.files.on_ready(trainer)

    def on_train_begin(self, trainer: Trainer) -> None:
        """Show the progress bar."""
        self.config = trainer.config
        self.bar.on_train_begin(trainer)

    def on_epoch_begin(self, trainer: Trainer) -> None:
        """Set how often this epoch logs."""
        every = self.config.log_every if self.logs else trainer.steps_per_epoch
        trainer.config = replace(self.config, log_every=every)
        self.before = trainer.progress.train_seconds, trainer.progress.data_wait_seconds

    def on_step_end(self, trainer: Trainer, steps: range) -> None:
        """Advance the progress bar."""
        if self.logs:
            self.bar.on_step_end(trainer, steps)

    def on_record(self, trainer: Trainer, record: Record) -> None:
        """Log the records of intervals, but not those of epochs."""
        if self.logs and record.period == "interval":
            self.bar.on_record(trainer, record)
            self.files.on_record(trainer, record)

    def on_steps_end(self, trainer: Trainer) -> None:
        """Store the seconds of the epoch."""
        self.seconds.append(trainer.progress.train_seconds - self.before[0])
        self.waits.append(trainer.progress.data_wait_seconds - self.before[1])

    def close(self) -> None:
        """Close the log files."""
        self.bar.close()
        self.files.close()


@dataclass(frozen=True)
class Costs:
    """Measurements of a config."""

    seconds: float
    """Median seconds of an epoch that logs."""
    logging: Estimate
    """Logarithm of the ratio of neighboring epochs, with and without logging: approximately the relative overhead."""
    waiting: float
    """Fraction of an epoch spent waiting for data."""

    def __str__(self) -> str:
        """Return three columns of the table."""
        low, high = self.logging.low, self.logging.high
        interval = "" if low is None else f" [{low:+.1%}, {high:+.1%}]"
        return f"{self.seconds:.2f} | {self.logging.mean:+.1%}{interval} | {self.waiting:.1%}"


def measure_costs(name: str, repeats: int, devices: Devices) -> Costs:
    """Train epochs with and without logging in turn and compare their times."""
    config = replace(read_config(name), epochs=2 * (repeats + 1), evaluate_train=False)
    splits = config.dataset.load()
    one_image = Split(splits.train.images[:1], splits.train.labels[:1], splits.train.class_names)
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        timer = EpochTimer(folder)
        trainer = Trainer(config, Splits(splits.train, one_image, None), devices, callbacks=[timer])
        with closing(trainer):
            trainer.fit()
    seconds, waits = timer.seconds, timer.waits
    logging, plain = (
        [seconds[epoch] for epoch in range(2, config.epochs) if (epoch % 4 in LOGGED) == logs] for logs in (True, False)
    )
    extra = [math.log(logs / does_not) for logs, does_not in zip(logging, plain, strict=True)]
    median = statistics.median(logging)
    return Costs(median, estimate(extra), statistics.median(waits[2:]) / median)


def main() -> None:
    """Print a table with one row per config."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", nargs="+", default=NAMES, help="configs to train")
    parser.add_argument("--repeats", type=int, default=7, help="epochs with and without logging, each")
    parser.add_argument("--input", choices=get_args(Input), default="auto", help="where training images are kept")
    options = parser.parse_args()
    print("| config | seconds per epoch | logging | waiting for data |\n|---|---|---|---|")
    for name in options.configs:
        print(f"| `{name}` | {measure_costs(name, options.repeats, Devices.all(input=options.input))} |", flush=True)


if __name__ == "__main__":
    main()
