"""Our side of training.py: the loop that train.py runs, with its data or with one batch again and again.

    python benchmarks/training_jaxclf.py FOLDER {data,one_batch}

It answers as training_worker.py says. Evaluation, checkpoints and writers are left out; the peers have none either.
"""

import itertools
import sys
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import jax
from training_worker import Turns, read_task

from jaxclf.config_io import read_config
from jaxclf.training.devices import Devices
from jaxclf.training.trainer import Trainer
from jaxclf.training.writers import Record
from jaxclf.types import Split, Splits

ENOUGH = 1_000  # epochs, more than are ever asked for


class OneBatchTrainer(Trainer):
    """Reads its first batch only: what is left is the step and its calls."""

    @cached_property
    def first_batch(self):
        """What the first call of the step takes."""
        return next(iter(super().batches(0, self.steps_per_epoch)))

    def batches(self, first: int, last: int):
        """The first batch, without end."""
        return itertools.repeat(self.first_batch)


def main() -> None:
    """Fit, which waits for its turn whenever the epochs of a slice are done, until no more is asked for."""
    turns = Turns()
    task, images, labels = read_task(Path(sys.argv[1]))
    kind = {"data": Trainer, "one_batch": OneBatchTrainer}[sys.argv[2]]
    splits = Splits(Split(images, labels, tuple(map(str, range(task.classes)))), None, None)
    config = replace(read_config(task.config), epochs=ENOUGH, evaluate_train=False)

    def write(record: Record) -> None:
        if (record.split, record.period) == ("train", "epoch") and record.epoch % task.epochs == 0:
            turns.end(record.values["loss"], f"jax {jax.__version__}, {jax.device_count()} device")

    kind(config, splits, Devices.all(), write=write).fit()


if __name__ == "__main__":
    main()
