"""What the workers of training.py share: the task, taking turns, and the choice among settings. It needs only NumPy."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

Train = Callable[[], float]  # trains a slice, all epochs of it, and gives the mean loss of the last one


@dataclass(frozen=True)
class Task:
    """A network and how it is trained, as plain values that mean the same in every framework."""

    config: str  # its name
    image_shape: tuple[int, int, int]  # height, width, channels
    convolutions: tuple[int, ...]  # filters of each; a ReLU and 2x2 max-pooling follow
    kernel_size: int
    dense: tuple[int, ...]  # widths of the hidden layers; a ReLU follows
    classes: int
    dropout: float  # share dropped before every dense layer and before the logits
    optimizer: str  # Adam or Sgd
    learning_rate: float
    batch_size: int
    parameters: int
    epochs: int  # of one slice

    def write(self, folder: Path, images: np.ndarray, labels: np.ndarray) -> None:
        """Leave the task and its data, uint8 images [n, h, w, c] and labels [n], for the workers."""
        (folder / "task.json").write_text(json.dumps(asdict(self)))
        np.save(folder / "images.npy", images)
        np.save(folder / "labels.npy", labels)


def read_task(folder: Path) -> tuple[Task, np.ndarray, np.ndarray]:
    """What `write` left."""
    values = json.loads((folder / "task.json").read_text())
    task = Task(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
    return task, np.load(folder / "images.npy"), np.load(folder / "labels.npy")


class Turns:
    """Lets a process train only when it is asked to: a line of input asks for a slice, a line of JSON answers.

    The first slice is a warm-up, which nobody asks for; its answer says that the process is ready.
    """

    def __init__(self):
        self._answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # what a framework prints must not be taken for an answer
        self._began = time.perf_counter()

    def end(self, loss: float, setting: str = "") -> None:
        """Answer the slice that has ended and wait for the next; with no more input, exit."""
        answer = {"seconds": time.perf_counter() - self._began, "loss": loss, "setting": setting}
        print(json.dumps(answer), file=self._answers, flush=True)
        if not sys.stdin.readline():
            sys.exit()
        self._began = time.perf_counter()


def fastest(settings: dict[str, Callable[[], Train]]) -> tuple[str, Train]:
    """The setting that trains fastest, warmed up; of more than one each is tried on two slices after its first."""
    best, best_seconds = None, float("inf")
    for setting, build in settings.items():
        train = build()
        train()
        taken = min(map(seconds, [train] * 2)) if len(settings) > 1 else 0.0
        if taken < best_seconds:
            best, best_seconds = (setting, train), taken
    assert best is not None
    return best


def seconds(train: Train) -> float:
    """How long a slice takes."""
    began = time.perf_counter()
    train()
    return time.perf_counter() - began
