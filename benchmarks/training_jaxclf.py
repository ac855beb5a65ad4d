"""Worker of training.py: the training loop of jaxclf, with its input pipeline or on one repeated batch.

    python benchmarks/training_jaxclf.py FOLDER {data,one_batch}

Replies as described in training_worker.py. Without evaluation, checkpoints and writers, as the peers.
"""

import itertools
import sys
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import jax
from training_worker import Turns, read_task

from jaxclf.config_io import read_config
from jaxclf.training.callbacks import Callback
from jaxclf.training.trainer import Trainer
from jaxclf.training.writers import Record
from jaxclf.types import Split, Splits

MAX_EPOCHS = 1_000  # more than are ever requested


class OneBatchTrainer(Trainer):
    """Trainer that repeats its first batch, to time the training step without the input pipeline."""

    @cached_property
    def first_batch(self):
        """The first batches of the input pipeline."""
        return next(iter(super().read_batches(0, self.steps_per_epoch)))

    def read_batches(self, start: int, stop: int):
        """Repeat the first batches endlessly."""
        return itertools.repeat(self.first_batch)


class EndOfSlice(Callback):
    """Waits for the next request after each slice."""

    def __init__(self, epochs: int):
        self.epochs, self.turns = epochs, Turns()

    def on_record(self, trainer: Trainer, record: Record) -> None:
        """Reply with the loss of the last epoch of a slice."""
        if (record.split, record.period) == ("train", "epoch") and record.epoch % self.epochs == 0:
            self.turns.end(record.values["loss"], f"jax {jax.__version__}, {jax.device_count()} device")


def main() -> None:
    """Train until the end of the requests."""
    task, images, labels = read_task(Path(sys.argv[1]))
    kind = {"data": Trainer, "one_batch": OneBatchTrainer}[sys.argv[2]]
    splits = Splits(Split(images, labels, tuple(map(str, range(task.classes)))), None, None)
    config = replace(read_config(task.config), epochs=MAX_EPOCHS, evaluate_train=False)
    kind(config, splits, callbacks=[EndOfSlice(task.epochs)]).fit()


if __name__ == "__main__":
    main()
