"""Compare training throughput, interleaved: jaxclf, Keras 3 on each backend, and PyTorch, on the same data.

    python benchmarks/training.py --repeats 5 --peer-python ~/torch/bin/python ~/keras/bin/python

Each contender is a subprocess that trains a slice of the data, the same for all, while the others wait. The whole
training is timed: reading shuffled batches from memory, scaling uint8 pixels, forward and backward pass, update,
running loss and accuracy. Imports, compilation and a first slice are not. The network, its optimizer and batch size are
those of the config. Keras and PyTorch are installed in separate environments; what no interpreter has is skipped.
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
SLICES = {  # steps per epoch, at most a few seconds on two cores
    "mnist_linear": 937,
    "mnist_mlp": 859,
    "mnist_mlp_wide": 430,
    "mnist_cnn": 100,
    "simpsons_cnn": 60,
}


@dataclass(frozen=True)
class Contender:
    """A framework, and how it trains."""

    name: str
    script: str
    variant: str
    needs: tuple[str, ...] = ()  # modules that its interpreter needs
    convolutions_only: bool = False


OURS = Contender("jaxclf", "training_jaxclf.py", "data")
ONE_BATCH = Contender("jaxclf, one batch", "training_jaxclf.py", "one_batch")  # without data loading
PEERS = (
    Contender("Keras 3 / TensorFlow", "training_keras.py", "tensorflow", ("keras", "tensorflow")),
    Contender("Keras 3 / JAX", "training_keras.py", "jax", ("keras", "jax")),
    Contender("Keras 3 / torch", "training_keras.py", "torch", ("keras", "torch")),
    Contender("PyTorch, eager", "training_torch.py", "contiguous", ("torch",)),
    Contender("PyTorch, channels last", "training_torch.py", "channels_last", ("torch",), convolutions_only=True),
    Contender("PyTorch, compiled", "training_torch.py", "compiled", ("torch",)),
)
Rates = dict[str, list[float]]  # images per second of each slice, by contender


class WorkerError(Exception):
    """A contender has failed."""


class Worker:
    """The subprocess of a contender."""

    def __init__(self, contender: Contender, python: str, folder: Path):
        self.name = contender.name
        self.errors = (folder / f"{contender.name.replace('/', '-')}.txt").open("w+")
        command = [python, str(HERE / contender.script), str(folder), contender.variant]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True
        )

    def train_slice(self) -> float:
        """Train a slice and return the seconds."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.read_reply()["seconds"]

    def read_reply(self) -> dict:
        """Return the next reply; the first one comes after the warm-up. Raise WorkerError if the process has ended."""
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.errors.seek(0)
            raise WorkerError(f"exit code {self.process.returncode}\n{self.errors.read()[-1_000:]}")
        reply = json.loads(line)
        if not math.isfinite(reply["loss"]):
            raise WorkerError(f"training diverges: the loss is {reply['loss']}")
        return reply

    def close(self) -> None:
        """End the process and wait for it."""
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self.errors.close()


def build_task(name: str, epochs: int) -> tuple[Task, np.ndarray, np.ndarray]:
    """Return the task of all contenders, its images and its labels."""
    config, steps = read_config(name), SLICES[name]
    images, labels = load_data(config, steps * config.batch_size)
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


def load_data(config: Config, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images and labels: the first of MNIST, or random ones of 64x64x3."""
    if isinstance(config.dataset, Mnist):
        train = config.dataset.load().train
        return train.images[:count], train.labels[:count]
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, 64, 64, 3), np.uint8)
    return images, random.integers(0, config.model.classes, count, np.int32)


def find_interpreters(pythons: list[str]) -> dict[Contender, str]:
    """Find an interpreter for each contender, and print which are skipped."""
    found = {OURS: sys.executable, ONE_BATCH: sys.executable}
    for peer in PEERS:
        able = (python for python in pythons if has_modules(python, peer.needs))
        if python := next(able, None):
            found[peer] = python
        else:
            print(f"{peer.name} is skipped: --peer-python needs an interpreter with {' and '.join(peer.needs)}")
    return found


def has_modules(python: str, modules: tuple[str, ...]) -> bool:
    """Return whether an interpreter has some modules."""
    code = "import importlib.util, sys; sys.exit(not all(map(importlib.util.find_spec, sys.argv[1:])))"
    return subprocess.run([python, "-c", code, *modules]).returncode == 0


def start(contender: Contender, python: str, folder: Path, stack: contextlib.ExitStack) -> Worker | None:
    """Start and warm up a contender; return None, and print the reason, if a peer fails."""
    worker, began = Worker(contender, python, folder), time.perf_counter()
    stack.callback(worker.close)
    try:
        setting = worker.read_reply()["setting"]
    except WorkerError as error:
        if contender not in PEERS:
            raise SystemExit(f"{worker.name}: {error}") from error
        print(f"{worker.name} is skipped: {error}", flush=True)
        return None
    print(f"{worker.name} ({setting}) was ready after {time.perf_counter() - began:.0f} s", flush=True)
    return worker


def measure_rates(name: str, found: dict[Contender, str], repeats: int, epochs: int) -> Rates:
    """Time slices of all contenders in turn and return their images per second."""
    print(f"\n{name}")
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        task, images, labels = build_task(name, epochs)
        task.write(Path(folder), images, labels)
        fit = [contender for contender in found if task.convolutions or not contender.convolutions_only]
        started = [start(contender, found[contender], Path(folder), stack) for contender in fit]
        workers = [worker for worker in started if worker]
        rates: Rates = {worker.name: [] for worker in workers}
        for _ in range(repeats):
            for worker in workers:
                time.sleep(0.1)  # let the threads of the previous contender go to sleep
                rates[worker.name].append(len(labels) * task.epochs / worker.train_slice())
    for contender, runs in rates.items():
        middle, low, high = statistics.median(runs), min(runs), max(runs)
        print(f"{contender}: {middle:,.0f} images/s (median), {low:,.0f} to {high:,.0f}", flush=True)
    return rates


def build_table(rates: dict[str, Rates]) -> str:
    """Build a Markdown table: images/s of each network and contender, and the ratio of jaxclf to each peer."""
    present = {name for runs in rates.values() for name in runs}
    columns = [contender for contender in (OURS, ONE_BATCH, *PEERS) if contender.name in present]
    names = ["images/s", *(column.name for column in columns), "ours / best peer"]
    rows = [names, ["---"] * len(names)]
    for network, runs in rates.items():
        medians = {name: statistics.median(values) for name, values in runs.items()}
        ratios = {peer: medians[OURS.name] / medians[peer.name] for peer in PEERS if peer.name in medians}
        entries = [format_entry(medians.get(column.name), ratios.get(column)) for column in columns]
        rows.append([f"`{network}`", *entries, f"{min(ratios.values()):.2f}" if ratios else ""])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def format_entry(rate: float | None, ratio: float | None) -> str:
    """Format images per second and, for a peer, the ratio of jaxclf to it."""
    if rate is None:
        return ""
    return f"{rate:,.0f}" if ratio is None else f"{rate:,.0f} ({ratio:.2f})"


def main() -> None:
    """Time all networks and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", nargs="+", choices=SLICES, default=list(SLICES), help="configs to train")
    parser.add_argument("--repeats", type=int, default=5, help="timed slices of each contender")
    parser.add_argument("--epochs", type=int, default=1, help="epochs of each slice; increase for a GPU")
    parser.add_argument("--peer-python", nargs="+", default=[], help="Python interpreters with keras or torch")
    options = parser.parse_args()
    for python in options.peer_python:
        if shutil.which(python) is None:
            parser.error(f"--peer-python {python}: not found; expected a Python interpreter")
    found = find_interpreters(options.peer_python)
    rates = {name: measure_rates(name, found, options.repeats, options.epochs) for name in options.configs}
    print(f"\nMedians of {options.repeats}; in parentheses, the ratio of jaxclf to it.\n\n{build_table(rates)}")


if __name__ == "__main__":
    main()
