"""Measure how speed depends on the batch size, the number of images, classes and devices, and the steps of a method.

    python benchmarks/scaling.py --repeats 5 --figure docs/scaling.png

Images are random. Each measurement is of whole epochs, or calls, after one that is not counted. The medians are
printed as images/s, and drawn. Devices are virtual: they share the cores of this machine.
"""

import argparse
import io
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing, redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import AxisType

from jaxclf.config import Config
from jaxclf.config_io import read_config
from jaxclf.figures.confusion import count_confusions
from jaxclf.metrics import Accuracy, compute_recalls
from jaxclf.models import Mlp
from jaxclf.models.calling import initialize_model
from jaxclf.optimizers import Sgd
from jaxclf.saliency import IntegratedGradients
from jaxclf.training.callbacks import Callback
from jaxclf.training.devices import AXIS, Devices
from jaxclf.training.evaluation import evaluate
from jaxclf.training.step_config import build_step_config
from jaxclf.training.trainer import Trainer
from jaxclf.types import Split, Splits

SIDE, STEPS = 28, 20
DEVICES = (1, 2, 4)
CNN = read_config("mnist_cnn").model
LINEAR = Mlp(features=(), classes=10)


class Sweep(NamedTuple):
    """A curve: images/s at several values of a quantity."""

    quantity: str
    work: str
    values: Sequence[int]
    measure: Callable[[int, int], float]
    """Maps a value and the number of repeats to images/s."""


class EpochTimer(Callback):
    """Stores the seconds of the steps of each epoch."""

    def __init__(self):
        self.seconds: list[float] = []

    def on_epoch_begin(self, trainer: Trainer) -> None:
        """Note when the epoch begins."""
        self.began = time.perf_counter()

    def on_steps_end(self, trainer: Trainer) -> None:
        """Wait for the last step, and store the seconds."""
        jax.block_until_ready(trainer.state.step)
        self.seconds.append(time.perf_counter() - self.began)


def make_split(images: np.ndarray, classes: int = 10) -> Split:
    """Return a split of images with labels of all classes in turn."""
    return Split(images, np.arange(len(images), dtype=np.int32) % classes, tuple(map(str, range(classes))))


def draw_images(count: int) -> np.ndarray:
    """Return random images."""
    return np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE, 1), np.uint8)


def use_devices(count: int) -> Devices:
    """Return some of the devices."""
    return Devices(jax.make_mesh((count,), (AXIS,), axis_types=(AxisType.Auto,), devices=jax.devices()[:count]))


def time_training(model: nn.Module, split: Split, batch_size: int, repeats: int, devices: int = 1) -> float:
    """Return the images/s of training epochs."""
    config = Config(None, model, Sgd(learning_rate=0.01), epochs=repeats + 1, batch_size=batch_size)
    one_image = Split(split.images[:1], split.labels[:1], split.class_names)
    timer = EpochTimer()
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        splits = Splits(split, None, one_image)
        with closing(Trainer(config, splits, use_devices(devices), callbacks=[timer])) as trainer:
            trainer.fit()
    return trainer.images_per_epoch / statistics.median(timer.seconds[1:])


def time_batch_size(batch_size: int, repeats: int) -> float:
    """Train a CNN with a batch size."""
    return time_training(CNN, make_split(draw_images(max(STEPS * batch_size, 500))), batch_size, repeats)


def time_data_size(count: int, repeats: int) -> float:
    """Train a linear network on images of a memory-mapped file."""
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        images = np.lib.format.open_memmap(file.name, "w+", np.uint8, (count, SIDE, SIDE, 1))
        for start in range(0, count, 10_000):
            images[start : start + 10_000] = draw_images(min(10_000, count - start))
        images = np.load(file.name, mmap_mode="r")
        return time_training(LINEAR, make_split(images), 100, repeats)


def time_training_classes(classes: int, repeats: int) -> float:
    """Train a network with one hidden layer for a number of classes."""
    return time_training(Mlp(features=(256,), classes=classes), make_split(draw_images(10_000), classes), 100, repeats)


def time_evaluation_classes(classes: int, repeats: int) -> float:
    """Evaluate such a network and count its confusion matrix, as the evaluation loop of `eval.py` does."""
    split, devices = make_split(draw_images(10_000), classes), use_devices(1)
    config = Config(None, Mlp(features=(256,), classes=classes), Sgd(learning_rate=0.01), epochs=1, batch_size=100)
    step_config = replace(build_step_config(config, 1), metrics=(Accuracy(),))
    variables = initialize_model(config.model, jax.random.key(0), split.images[:1])[1]
    step = devices.compile_eval_step(step_config)

    def call() -> None:
        logits = evaluate(step_config, devices, step, variables, split, 500, keep_logits=True).logits
        compute_recalls(count_confusions(split.labels, logits.argmax(axis=1), classes))

    return time_calls(call, len(split), repeats)


def time_devices(devices: int, repeats: int) -> float:
    """Train a CNN on a number of devices."""
    return time_training(CNN, make_split(draw_images(STEPS * 256)), 256, repeats, devices)


def time_path_steps(steps: int, repeats: int) -> float:
    """Explain images with a number of steps of integrated gradients."""
    images = draw_images(64)
    variables = initialize_model(CNN, jax.random.key(0), images)[1]
    method = IntegratedGradients(steps=steps)
    return time_calls(lambda: jax.block_until_ready(method(CNN, variables, images)), len(images), repeats)


def time_calls(call: Callable[[], object], images: int, repeats: int) -> float:
    """Return the images/s of calls."""
    ends = []
    for _ in range(repeats + 1):
        ends.append(time.perf_counter())
        call()
    return images / statistics.median(
        end - start for start, end in itertools.pairwise([*ends[1:], time.perf_counter()])
    )


SWEEPS = (
    Sweep("batch size", "training, CNN", (1, 4, 16, 64, 256, 1024, 4096), time_batch_size),
    Sweep("images", "training, linear, memory map", (1_000, 10_000, 100_000, 1_000_000), time_data_size),
    Sweep("classes", "training, one hidden layer", (2, 10, 100, 1_000, 10_000), time_training_classes),
    Sweep("classes", "evaluation, one hidden layer", (2, 10, 100, 1_000, 10_000), time_evaluation_classes),
    Sweep("virtual devices", "training, CNN, batch 256", DEVICES, time_devices),
    Sweep("steps", "integrated gradients, CNN", (10, 30, 100, 300, 1_000), time_path_steps),
)


def plot(curves: Sequence[tuple[Sweep, Sequence[float]]], path: Path) -> None:
    """Draw a panel for each sweep, on logarithmic scales."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5.6), layout="constrained")
    for axis, (sweep, speeds) in zip(figure.subplots(2, 3).flat, curves, strict=False):
        axis.plot(sweep.values[: len(speeds)], speeds, "o-", color="#1f5fa8")
        axis.set(
            xscale="log",
            yscale="log",
            xlabel=sweep.quantity,
            ylabel="images/s",
            ylim=(min(speeds) / 3, max(speeds) * 3),
        )
        axis.set_xticks(sweep.values, [f"{value:,}" for value in sweep.values], fontsize=8)
        axis.minorticks_off()
        axis.set_title(sweep.work, fontsize=10)
        axis.grid(color="0.9")
    figure.savefig(path, dpi=120)


def main() -> None:
    """Measure all sweeps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="epochs or calls of each measurement")
    parser.add_argument("--points", type=int, help="only the first values of each quantity")
    parser.add_argument("--figure", type=Path, help="also draw the curves")
    options = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", max(DEVICES))
    curves = []
    for sweep in SWEEPS:
        print(f"\n| {sweep.quantity} | images/s: {sweep.work} |\n|---|---|")
        speeds = []
        for value in sweep.values[: options.points]:
            if sweep.measure is time_devices and value > jax.device_count():  # on a GPU
                break
            speeds.append(sweep.measure(value, options.repeats))
            print(f"| {value:,} | {speeds[-1]:,.0f} |", flush=True)
        curves.append((sweep, speeds))
    if options.figure:
        plot(curves, options.figure)


if __name__ == "__main__":
    main()
