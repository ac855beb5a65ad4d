"""What the loop around the compiled step costs on MNIST: lines of the log, and waiting for data.

    python benchmarks/loop_costs.py --repeats 7

Epochs that log as `train.py` does (metrics.jsonl, TensorBoard, a line of text) and epochs that log once at their end,
in turn, by one compiled step. Evaluation and checkpoints are left out. What logging costs is the mean over pairs of
neighbours, with its 95 % confidence interval: machines are noisy. The mean is that of logarithms, since that of ratios
is more than 1 for two kinds of epochs that take equally long, by a percent where they vary by a tenth.
"""

import argparse
import io
import math
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass, replace

from jaxclf.cli.train import written
from jaxclf.config_io import read_config
from jaxclf.reporting.stats import Estimate, estimate
from jaxclf.runs.directory import RunDirectory
from jaxclf.training.devices import Devices
from jaxclf.training.trainer import Trainer
from jaxclf.training.writers import Record

LOGGED = (0, 3)  # of four epochs, so that neither kind is always the second of a pair; the first pair warms up
NAMES = ("mnist_linear", "mnist_mlp", "mnist_mlp_wide", "mnist_cnn", "mnist_fast")


@contextmanager
def logged(trainer: Trainer) -> Iterator[None]:
    """Inside the block, log as a run does, whose files are open already; the terminal's share is that of a pipe."""
    with (
        tempfile.TemporaryDirectory() as folder,
        redirect_stdout(io.StringIO()),
        written(trainer, RunDirectory(folder)),
    ):
        yield


@contextmanager
def unlogged(trainer: Trainer) -> Iterator[None]:
    """Inside the block, one record at the end of the epoch, which goes nowhere."""
    config, write, on_step = trainer.config, trainer.write, trainer.on_step
    trainer.config = replace(config, log_every=trainer.steps_per_epoch)
    trainer.write, trainer.on_step = nowhere, lambda step, epoch: None
    yield
    trainer.config, trainer.write, trainer.on_step = config, write, on_step


def nowhere(record: Record) -> None:
    """Keep nothing."""


@dataclass(frozen=True)
class Costs:
    """What was measured of a config."""

    seconds: float
    """Of an epoch that logs."""
    logging: Estimate
    """The logarithm of an epoch that logs over its neighbour that does not: nearly what it takes longer, as a part."""
    waiting: float
    """The part of an epoch in which it waited for data."""

    def __str__(self) -> str:
        """Three columns of the table."""
        low, high = self.logging.low, self.logging.high
        interval = "" if low is None else f" [{low:+.1%}, {high:+.1%}]"
        return f"{self.seconds:.2f} | {self.logging.mean:+.1%}{interval} | {self.waiting:.1%}"


def costs(name: str, repeats: int) -> Costs:
    """Train epochs of both kinds in turn."""
    config = replace(read_config(name), epochs=2 * (repeats + 1))
    trainer = Trainer(config, config.dataset.load(), Devices.all())
    state, feed = trainer.start(), trainer.batches(0, trainer.total_steps)
    seconds, waits = [], []
    with logged(trainer):
        for epoch in range(config.epochs):
            before = trainer.progress.train_seconds, trainer.progress.data_wait_seconds
            with nullcontext() if epoch % 4 in LOGGED else unlogged(trainer):
                state = trainer.fit_epoch(state, feed)
            state = state.replace(epoch_stats=trainer.zeros())
            trainer.progress.epochs_done += 1
            seconds.append(trainer.progress.train_seconds - before[0])
            waits.append(trainer.progress.data_wait_seconds - before[1])
    logging, plain = (
        [seconds[epoch] for epoch in range(2, config.epochs) if (epoch % 4 in LOGGED) == logs] for logs in (True, False)
    )
    extra = [math.log(logs / does_not) for logs, does_not in zip(logging, plain, strict=True)]
    median = statistics.median(logging)
    return Costs(median, estimate(extra), statistics.median(waits[2:]) / median)


def main() -> None:
    """Print a row a config."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", nargs="+", default=NAMES, help="what is trained")
    parser.add_argument("--repeats", type=int, default=7, help="epochs of each kind")
    options = parser.parse_args()
    print("| config | seconds an epoch | logging | waiting for data |\n|---|---|---|---|")
    for name in options.configs:
        print(f"| `{name}` | {costs(name, options.repeats)} |", flush=True)


if __name__ == "__main__":
    main()
