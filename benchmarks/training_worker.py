"""Shared code of the workers of training.py: the task, the protocol, and the choice of settings. Needs only NumPy."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

Train = Callable[[], float]  # trains all epochs of a slice and returns the mean loss of the last one


@dataclass(frozen=True)
class Task:
    """A network and its training, as plain values for all frameworks."""

    config: str  # name
    image_shape: tuple[int, int, int]  # height, width, channels
    convolutions: tuple[int, ...]  # filters of each, followed by ReLU and 2x2 max-pooling
    kernel_size: int
    dense: tuple[int, ...]  # widths of the hidden layers, followed by ReLU
    classes: int
    dropout: float  # rate before each dense layer and the logits
    optimizer: str  # Adam or Sgd
    learning_rate: float
    batch_size: int
    parameters: int
    epochs: int  # of one slice

    def write(self, folder: Path, images: np.ndarray, labels: np.ndarray) -> None:
        """Write the task and its data, uint8 images [n, h, w, c] and labels [n], for the workers."""
        (folder / "task.json").write_text(json.dumps(asdict(self)))
        np.save(folder / "images.npy", images)
        np.save(folder / "labels.npy", labels)


def read_task(folder: Path) -> tuple[Task, np.ndarray, np.ndarray]:
    """Read the task, images and labels from `Task.write`."""
    values = json.loads((folder / "task.json").read_text())
    task = Task(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
    return task, np.load(folder / "images.npy"), np.load(folder / "labels.npy")


class Turns:
    """Protocol of a worker: each line of input requests a slice, and a line of JSON is the reply.

    The first slice is the warm-up, without a request; its reply signals that the worker is ready.
    """

    def __init__(self):
        self._replies = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # output of the framework must not be read as a reply
        self._began = time.perf_counter()

    def end(self, loss: float, setting: str = "") -> None:
        """Reply to the request of the slice that has ended and wait for the next; exit at the end of the input."""
        reply = {"seconds": time.perf_counter() - self._began, "loss": loss, "setting": setting}
        print(json.dumps(reply), file=self._replies, flush=True)
        if not sys.stdin.readline():
            sys.exit()
        self._began = time.perf_counter()


def find_fastest(settings: dict[str, Callable[[], Train]]) -> tuple[str, Train]:
    """Return the fastest setting, warmed up; several settings are timed on two slices each, after a first one."""
    best, best_seconds = None, float("inf")
    for setting, build in settings.items():
        train = build()
        train()
        taken = min(map(time_slice, [train] * 2)) if len(settings) > 1 else 0.0
        if taken < best_seconds:
            best, best_seconds = (setting, train), taken
    assert best is not None
    return best


def time_slice(train: Train) -> float:
    """Train a slice and return the seconds."""
    began = time.perf_counter()
    train()
    return time.perf_counter() - began
