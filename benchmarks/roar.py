"""Remove and retrain (ROAR): test accuracy after removing the most important pixels from all images.

    python benchmarks/roar.py mnist_linear mnist_cnn --methods gradient smooth-grad-squared --percentages 10 50 90

Each config is trained, and all images are explained for the predicted class. The most important pixels, by the absolute
value of the sum over channels, are replaced by the mean of the training images, and the config is trained again. If a
method finds the pixels that matter, accuracy falls faster than after the removal of random pixels.

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
from jaxclf.inference.initial_variables import load_initial_variables
from jaxclf.random import make_key
from jaxclf.saliency.names import METHODS
from jaxclf.training.devices import Devices
from jaxclf.training.state import get_variables
from jaxclf.training.trainer import Trainer
from jaxclf.types import Split, Splits, Variables

COMPARED = (
    "gradient", "gradient-times-input", "integrated-gradients", "smooth-grad", "smooth-grad-squared", "var-grad",
)  # fmt: skip
BATCH = 500


def select_first(splits: Splits, limit: int) -> Splits:
    """Load the first images of each split into memory; all of them if the limit is 0."""

    def of(split: Split) -> Split:
        n = min(limit or len(split), len(split))
        return Split(np.asarray(split.images[np.arange(n)]), split.labels[:n], split.class_names)

    return Splits(**{name: split and of(split) for name, split in splits.items()})


def train(config: Config, splits: Splits) -> tuple[Variables, float]:
    """Train a network; return its variables and its test accuracy."""
    trainer = Trainer(config, splits, Devices.all(), init=load_initial_variables(config, splits))
    state = trainer.fit()
    return jax.device_get(get_variables(state)), trainer.evaluate(splits["test"]).values["accuracy"]


def compute_importance(
    method: saliency.Method | None, config: Config, variables: Variables, split: Split
) -> np.ndarray:
    """Return the importance [n, pixels] of each pixel for the predicted class; random numbers if method is None."""
    n = len(split)
    if method is None:
        return np.random.default_rng(config.seed).random((n, math.prod(split.image_shape[:2])))
    key = make_key(config.seed, "saliency")
    found = []
    for start in range(0, n, BATCH):
        images = split.images[start : start + BATCH]
        values = method(config.model, variables, images, key=jax.random.fold_in(key, start)).values
        found.append(np.abs(np.asarray(values).sum(axis=-1)).reshape(len(images), -1))
    return np.concatenate(found)


def remove_pixels(splits: Splits, scores: dict[str, np.ndarray], percentage: float) -> Splits:
    """Replace a percentage of the pixels of each image, the most important ones, by the mean color."""
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
    """Print the accuracy on whole images and a line per method and percentage."""
    variables, accuracy = train(config, splits)
    print(f"{name}: test accuracy {accuracy:.2%} on whole images", flush=True)
    for label in ("random", *options.methods):
        method = None if label == "random" else METHODS[label]()
        scores = {part: compute_importance(method, config, variables, split) for part, split in splits.items() if split}
        for percentage in options.percentages:
            left, began = remove_pixels(splits, scores, percentage), time.perf_counter()
            found = [train(replace(config, seed=config.seed + i), left)[1] for i in range(options.repeats)]
            spread = f" ± {statistics.stdev(found):.2%}" if len(found) > 1 else ""
            print(
                f"{name}: {label:<20} {percentage:>5g} % removed  {statistics.mean(found):7.2%}{spread}"
                f"  in {time.perf_counter() - began:.1f} s",
                flush=True,
            )


def main() -> None:
    """Run all configs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="+", help="config files, or names of built-in configs")
    parser.add_argument("--methods", nargs="+", choices=COMPARED, default=COMPARED, help="saliency methods")
    parser.add_argument(
        "--percentages", type=float, nargs="+", default=[10, 30, 50, 70, 90], help="of pixels to remove"
    )
    parser.add_argument("--repeats", type=int, default=1, help="number of retraining runs, with different seeds")
    parser.add_argument("--limit", type=int, default=0, help="images of each split; 0: all")
    parser.add_argument("--epochs", type=int, help="epochs (default: those of the config)")
    options = parser.parse_args()
    for name in options.configs:
        config = read_config(name)
        if options.epochs:
            config = replace(config, epochs=options.epochs)
        run(name, config, select_first(config.dataset.load(), options.limit), options)


if __name__ == "__main__":
    main()
