"""Images a second in training, interleaved: ours against Keras 3 on each backend and PyTorch, on the same data.

    python benchmarks/training.py --repeats 5 --peer-python ~/torch/bin/python ~/keras/bin/python

Every contender is a process of its own that trains a slice, the same for all, when it is asked to; nobody else
works meanwhile. What is timed is whole training: reading batches from memory in a new order every epoch, scaling
uint8 pixels, forward, backward, update, running loss and accuracy. Imports, compilation and a first slice are not.
The network, its optimiser and batch size are those of the config. Peers are installed apart from jaxclf; what no
interpreter has is skipped, and without one only ours is timed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from training_worker import Task

from jaxclf.config import Config
from jaxclf.config_io import read_config
from jaxclf.datasets import Mnist
from jaxclf.models import Cnn, summarize

HERE = Path(__file__).parent
SLICES = {  # steps of an epoch, which takes some seconds at most on two cores
    "mnist_linear": 937,
    "mnist_mlp": 859,
    "mnist_mlp_wide": 430,
    "mnist_cnn": 100,
    "simpsons_cnn": 60,
}


@dataclass(frozen=True)
class Contender:
    """Something that trains the same network."""

    name: str
    script: str
    variant: str
    needs: tuple[str, ...] = ()  # modules that its interpreter must have
    convolutions_only: bool = False


OURS = Contender("jaxclf", "training_jaxclf.py", "data")
ONE_BATCH = Contender("jaxclf, one batch", "training_jaxclf.py", "one_batch")  # read again and again
PEERS = (
    Contender("Keras 3 / TensorFlow", "training_keras.py", "tensorflow", ("keras", "tensorflow")),
    Contender("Keras 3 / JAX", "training_keras.py", "jax", ("keras", "jax")),
    Contender("Keras 3 / torch", "training_keras.py", "torch", ("keras", "torch")),
    Contender("PyTorch, eager", "training_torch.py", "contiguous", ("torch",)),
    Contender("PyTorch, channels last", "training_torch.py", "channels_last", ("torch",), convolutions_only=True),
    Contender("PyTorch, compiled", "training_torch.py", "compiled", ("torch",)),
)
Rates = dict[str, list[float]]  # images a second of each slice, by the name of the contender


class WorkerError(Exception):
    """A contender cannot go on; says why."""


class Worker:
    """A contender at work on a task, in a process of its own."""

    def __init__(self, contender: Contender, python: str, folder: Path):
        self.name = contender.name
        self.errors = (folder / f"{contender.name.replace('/', '-')}.txt").open("w+")
        command = [python, str(HERE / contender.script), str(folder), contender.variant]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True
        )

    def slice(self) -> float:
        """Train a slice; the seconds that took."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.answer()["seconds"]

    def answer(self) -> dict:
        """The next answer, the first of them when all is warm; raises WorkerError if there is none."""
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.errors.seek(0)
            raise WorkerError(f"exit code {self.process.returncode}\n{self.errors.read()[-1_000:]}")
        answer = json.loads(line)
        if not math.isfinite(answer["loss"]):
            raise WorkerError(f"it does not train: the loss is {answer['loss']}")
        return answer

    def close(self) -> None:
        """Let the process end, and wait for that."""
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self.errors.close()


def task_of(name: str, epochs: int) -> tuple[Task, np.ndarray, np.ndarray]:
    """What all contenders train, its images and its labels."""
    config, steps = read_config(name), SLICES[name]
    images, labels = data_of(config, steps * config.batch_size)
    model, optimizer = config.model, config.optimizer
    convolutions = isinstance(model, Cnn)
    task = Task(
        config=name,
        image_shape=images.shape[1:],
        convolutions=model.features if convolutions else (),
        kernel_size=model.kernel_size if convolutions else 0,
        dense=model.dense if convolutions else model.features,
        classes=model.classes,
        dropout=model.dropout,
        optimizer=type(optimizer).__name__,
        learning_rate=optimizer.learning_rate,
        batch_size=config.batch_size,
        parameters=summarize(model, images.shape[1:]).parameters,
        epochs=epochs,
    )
    return task, images, labels


def data_of(config: Config, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first images of MNIST, or random ones of 64x64x3, and labels."""
    if isinstance(config.dataset, Mnist):
        train = config.dataset.load().train
        return train.images[:count], train.labels[:count]
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, 64, 64, 3), np.uint8)
    return images, random.integers(0, config.model.classes, count, np.int32)


def interpreters(pythons: list[str]) -> dict[Contender, str]:
    """The first interpreter that has what a contender needs, ours included; says who is skipped."""
    found = {OURS: sys.executable, ONE_BATCH: sys.executable}
    for peer in PEERS:
        able = (python for python in pythons if has(python, peer.needs))
        if python := next(able, None):
            found[peer] = python
        else:
            print(f"{peer.name} is skipped: give --peer-python an interpreter that has {' and '.join(peer.needs)}")
    return found


def has(python: str, modules: tuple[str, ...]) -> bool:
    """Whether an interpreter can import the modules."""
    code = "import importlib.util, sys; sys.exit(not all(map(importlib.util.find_spec, sys.argv[1:])))"
    return subprocess.run([python, "-c", code, *modules]).returncode == 0


def start(contender: Contender, python: str, folder: Path, stack: contextlib.ExitStack) -> Worker | None:
    """A contender, warmed up; None, and a line about it, where a peer fails."""
    worker, began = Worker(contender, python, folder), time.perf_counter()
    stack.callback(worker.close)
    try:
        setting = worker.answer()["setting"]
    except WorkerError as error:
        if contender not in PEERS:
            raise SystemExit(f"{worker.name}: {error}") from error
        print(f"{worker.name} is skipped: {error}", flush=True)
        return None
    print(f"{worker.name} ({setting}) was ready after {time.perf_counter() - began:.0f} s", flush=True)
    return worker


def rates_of(name: str, found: dict[Contender, str], repeats: int, epochs: int) -> Rates:
    """Time a slice of every contender in turn, several times over."""
    print(f"\n{name}")
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        task, images, labels = task_of(name, epochs)
        task.write(Path(folder), images, labels)
        fit = [contender for contender in found if task.convolutions or not contender.convolutions_only]
        started = [start(contender, found[contender], Path(folder), stack) for contender in fit]
        workers = [worker for worker in started if worker]
        rates: Rates = {worker.name: [] for worker in workers}
        for _ in range(repeats):
            for worker in workers:
                time.sleep(0.1)  # until the threads of the one before are at rest
                rates[worker.name].append(len(labels) * task.epochs / worker.slice())
    for contender, runs in rates.items():
        middle, low, high = statistics.median(runs), min(runs), max(runs)
        print(f"{contender}: {middle:,.0f} images/s in the median, {low:,.0f} to {high:,.0f}", flush=True)
    return rates


def table(rates: dict[str, Rates]) -> str:
    """Markdown: a row a network, a column a contender, and how many times faster ours is, also than the best peer."""
    present = {name for runs in rates.values() for name in runs}
    columns = [contender for contender in (OURS, ONE_BATCH, *PEERS) if contender.name in present]
    names = ["images/s", *(column.name for column in columns), "ours / best peer"]
    rows = [names, ["---"] * len(names)]
    for network, runs in rates.items():
        medians = {name: statistics.median(values) for name, values in runs.items()}
        ratios = {peer: medians[OURS.name] / medians[peer.name] for peer in PEERS if peer.name in medians}
        cells = [cell(medians.get(column.name), ratios.get(column)) for column in columns]
        rows.append([f"`{network}`", *cells, f"{min(ratios.values()):.2f}" if ratios else ""])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def cell(rate: float | None, ratio: float | None) -> str:
    """A rate and, where it is a peer's, how many times faster ours is."""
    if rate is None:
        return ""
    return f"{rate:,.0f}" if ratio is None else f"{rate:,.0f} ({ratio:.2f})"


def main() -> None:
    """Time network after network, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", nargs="+", choices=SLICES, default=list(SLICES), help="what is trained")
    parser.add_argument("--repeats", type=int, default=5, help="timed slices of each contender")
    parser.add_argument("--epochs", type=int, default=1, help="of each slice; more of them for a GPU")
    parser.add_argument("--peer-python", nargs="+", default=[], help="interpreters that have keras or torch")
    options = parser.parse_args()
    for python in options.peer_python:
        if shutil.which(python) is None:
            parser.error(f"--peer-python {python}: there is no such program; name a Python interpreter")
    found = interpreters(options.peer_python)
    rates = {name: rates_of(name, found, options.repeats, options.epochs) for name in options.configs}
    print(f"\nMedians of {options.repeats}; in brackets, ours / theirs.\n\n{table(rates)}")


if __name__ == "__main__":
    main()
