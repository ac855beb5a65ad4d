"""`jaxclf data`: show the dataset of a config before training."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np

from jaxclf.augment import augment_batch
from jaxclf.cli.load_run import override_dataset
from jaxclf.cli.options import DataOptions
from jaxclf.cli.remarks import print_remarks
from jaxclf.config import Config
from jaxclf.config_io import read_config
from jaxclf.datasets import load_splits
from jaxclf.errors import require
from jaxclf.figures import plot_augmented, plot_image_grid, plot_one_hot, save
from jaxclf.random import make_key
from jaxclf.reporting.tables import print_rows
from jaxclf.types import Split, Splits

AT_ONCE = 1_000  # images read together
SHEET = 100  # classes in a figure, at most
AUGMENTED = 8  # images, and times that each is augmented


def run(options: DataOptions) -> int:
    """Run `jaxclf data`; return the exit code."""
    config = read_config(options.config)
    require(bool(config.augment or not options.augmented), f"{options.config} has no augmentations to draw")
    splits = load_splits(override_dataset(config.dataset, options.dataset))
    for name, split in splits.items():
        shapes = f"images {list(split.images.shape)}, labels {list(split.labels.shape)}" if split else "none"
        print(f"{name}: {shapes}")
    _print_classes(splits)
    print_remarks(splits)
    _print_pixels(splits.train)
    output = options.output or Path("runs") / Path(options.config).stem / "dataset"
    output.mkdir(parents=True, exist_ok=True)
    for path in _draw_figures(splits.train, output, options.seed):
        print(f"wrote {path}")
    if options.augmented:
        print(f"wrote {_draw_augmented(config, splits.train, output / 'augmented.png', options.seed)}")
    return 0


def _draw_augmented(config: Config, split: Split, path: Path, seed: int) -> Path:
    """Draw random training images beside what they become in several steps of training."""
    chosen = np.random.default_rng(seed).choice(len(split), min(AUGMENTED, len(split)), replace=False)
    images, key = split.images[chosen], make_key(config.seed, "augment")

    @jax.jit
    def augment(step):
        return augment_batch(config.augment, jax.random.fold_in(key, step), np.arange(len(chosen)), images)

    drawn = jax.device_get([augment(step) for step in range(AUGMENTED)])
    names = " · ".join(type(augmentation).__name__ for augmentation in config.augment)
    return save(plot_augmented(images, drawn, names), path)


def _print_classes(splits: Splits) -> None:
    """Print the number of images of each class in each split, and its share of the training images."""
    names = splits.train.class_names
    counts = {name: np.bincount(split.labels, minlength=len(names)) for name, split in splits.items() if split}
    shares = counts["train"] / len(splits.train)
    rows = [
        [name, *(f"{of_split[label]:,}" for of_split in counts.values()), f"{shares[label]:.1%}"]
        for label, name in enumerate(names)
    ]
    print_rows([f"{len(names)} classes", *counts, "of train"], rows)


def _print_pixels(split: Split) -> None:
    """Print the range and the distinct values of the training images."""
    parts = (np.arange(i, min(i + AT_ONCE, len(split))) for i in range(0, len(split), AT_ONCE))
    values = np.unique(np.concatenate([np.unique(split.images[part]) for part in parts]))
    first = ", ".join(map(str, values[:8].tolist())) + (", …" if len(values) > 8 else "")
    print(f"pixels: {values.dtype}, from {values.min()} to {values.max()}, {len(values)} distinct values ({first})")


def _draw_figures(split: Split, output: Path, seed: int) -> list[Path]:
    """Draw the first 25 images, nine random ones with labels, one with its one-hot vector, and one of each class."""
    few = np.arange(min(25, len(split)))
    chosen = np.random.default_rng(seed).choice(len(split), min(9, len(split)), replace=False)
    random = np.random.default_rng(seed)
    classes = np.unique(split.labels)[:SHEET]
    each = np.array([random.choice(np.flatnonzero(split.labels == label)) for label in classes])
    names, every = ([split.class_names[label] for label in split.labels[rows]] for rows in (chosen, each))
    figures = {
        "first": plot_image_grid(split.images[few], title=f"The first {len(few)} training images"),
        "labelled": plot_image_grid(split.images[chosen], names, title=f"{len(chosen)} random training images"),
        "classes": plot_image_grid(split.images[each], every, title="The classes"),
        "one_hot": plot_one_hot(split.images[chosen[:1]][0], int(split.labels[chosen[0]]), split.class_names),
    }
    return [save(figure, output / f"{name}.png") for name, figure in figures.items()]
