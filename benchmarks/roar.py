"""Remove and retrain: accuracy after the pixels that a method finds important are gone from all images.

    python benchmarks/roar.py mnist_linear mnist_cnn --methods gradient smooth-grad-squared --percentages 10 50 90

Each config is trained, and every image explained for the class that is predicted. The most important pixels, by the
absolute value of their sum over channels, are replaced with the mean of the training images, and the config is trained
anew on what is left. Without the pixels that matter accuracy falls faster than without random ones.

S. Hooker et al., "A benchmark for interpretability methods in deep neural networks" (2019), arXiv:1806.10758.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from dataclasses import replace

import jax
import numpy as np

from jaxclf import saliency
from jaxclf.config import Config
from jaxclf.config_io import read_config
from jaxclf.random import stream
from jaxclf.saliency.names import METHODS
from jaxclf.training.devices import Devices
from jaxclf.training.step import variables_of
from jaxclf.training.trainer import Trainer
from jaxclf.types import Split, Splits, Variables

COMPARED = (
    "gradient", "gradient-times-input", "integrated-gradients", "smooth-grad", "smooth-grad-squared", "var-grad",
)  # fmt: skip
BATCH = 500


def first(splits: Splits, limit: int) -> Splits:
    """The first images of each split, all of them where the limit is 0, in memory."""

    def of(split: Split) -> Split:
        n = min(limit or len(split), len(split))
        return Split(np.asarray(split.images[np.arange(n)]), split.labels[:n], split.class_names)

    return Splits(**{name: split and of(split) for name, split in splits.items()})


def train(config: Config, splits: Splits) -> tuple[Variables, float]:
    """The variables of a run that is not kept, and its test accuracy."""
    trainer = Trainer(config, splits, Devices.all())
    state = trainer.fit()
    return jax.device_get(variables_of(state)), trainer.evaluate(state, splits["test"]).values["accuracy"]


def importance(method: saliency.Method | None, config: Config, variables: Variables, split: Split) -> np.ndarray:
    """How important each pixel is to the predicted class, [n, pixels]; at random without a method."""
    n = len(split)
    if method is None:
        return np.random.default_rng(config.seed).random((n, math.prod(split.image_shape[:2])))
    key = stream(config.seed, "saliency")
    found = []
    for start in range(0, n, BATCH):
        images = split.images[start : start + BATCH]
        values = method(config.model, variables, images, key=jax.random.fold_in(key, start)).values
        found.append(np.abs(np.asarray(values).sum(axis=-1)).reshape(len(images), -1))
    return np.concatenate(found)


def without(splits: Splits, scores: dict[str, np.ndarray], percentage: float) -> Splits:
    """The splits with that percentage of the pixels of each image, the most important, replaced by the mean colour."""
    mean = np.asarray(splits.train.images).mean(axis=(0, 1, 2)).round().astype(np.uint8)

    def of(split: Split, scores: np.ndarray) -> Split:
        images = np.array(split.images)
        n, height, width, channels = images.shape
        count = round(height * width * percentage / 100)
        places = np.argsort(-scores, axis=1, kind="stable")[:, :count]
        images.reshape(n, -1, channels)[np.arange(n)[:, None], places] = mean
        return Split(images, split.labels, split.class_names)

    return Splits(**{name: split and of(split, scores[name]) for name, split in splits.items()})


def run(name: str, config: Config, splits: Splits, options: argparse.Namespace) -> None:
    """Print the accuracy on whole images, and a row a method and percentage."""
    variables, accuracy = train(config, splits)
    print(f"{name}: test accuracy {accuracy:.2%} on whole images", flush=True)
    for label in ("random", *options.methods):
        method = None if label == "random" else METHODS[label]()
        scores = {part: importance(method, config, variables, split) for part, split in splits.items() if split}
        for percentage in options.percentages:
            left, began = without(splits, scores, percentage), time.perf_counter()
            found = [train(replace(config, seed=config.seed + i), left)[1] for i in range(options.repeats)]
            spread = f" ± {statistics.stdev(found):.2%}" if len(found) > 1 else ""
            print(
                f"{name}: {label:<20} {percentage:>5g} % gone  {statistics.mean(found):7.2%}{spread}"
                f"  in {time.perf_counter() - began:.1f} s",
                flush=True,
            )


def main() -> None:
    """A config after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="+", help="what is trained: a file, or the name of one that comes with jaxclf")
    parser.add_argument("--methods", nargs="+", choices=COMPARED, default=COMPARED, help="beside random pixels")
    parser.add_argument("--percentages", type=float, nargs="+", default=[10, 30, 50, 70, 90], help="pixels replaced")
    parser.add_argument("--repeats", type=int, default=1, help="trainings anew of each, with other seeds")
    parser.add_argument("--limit", type=int, default=0, help="images of each split; 0 takes all")
    parser.add_argument("--epochs", type=int, help="in place of the config's")
    options = parser.parse_args()
    for name in options.configs:
        config = read_config(name)
        if options.epochs:
            config = replace(config, epochs=options.epochs)
        run(name, config, first(config.dataset.load(), options.limit), options)


if __name__ == "__main__":
    main()
