"""Look at the data of a config before any training: `python -m jaxclf.datasets configs/mnist_cnn.py`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jaxclf.cli.options import DataOptions
from jaxclf.cli.remarks import print_remarks
from jaxclf.config_io import read_config
from jaxclf.reporting.figures import image_grid, one_hot_figure, save
from jaxclf.types import Split

AT_ONCE = 1_000  # images read together
SHEET = 100  # classes on a sheet


def run(options: DataOptions) -> int:
    """Print what the data is, and draw pictures of it."""
    splits = read_config(options.config).dataset.load()
    for name, split in splits.items():
        shapes = f"images {list(split.images.shape)}, labels {list(split.labels.shape)}" if split else "none"
        print(f"{name}: {shapes}")
    print_classes(splits.train)
    print_remarks(splits)
    print_pixels(splits.train)
    output = options.output or Path("runs") / Path(options.config).stem / "dataset"
    output.mkdir(parents=True, exist_ok=True)
    for picture in draw(splits.train, output, options.seed):
        print(f"wrote {picture}")
    return 0


def print_classes(split: Split) -> None:
    """How many training images each class has."""
    counts = np.bincount(split.labels, minlength=len(split.class_names))
    width = max(map(len, split.class_names))
    print(f"{len(counts)} classes, in training:")
    for name, count in zip(split.class_names, counts, strict=True):
        print(f"  {name:<{width}}  {count:>7,}  {count / len(split):.1%}")


def print_pixels(split: Split) -> None:
    """The distinct values of the training images, and their range."""
    parts = (np.arange(i, min(i + AT_ONCE, len(split))) for i in range(0, len(split), AT_ONCE))
    values = np.unique(np.concatenate([np.unique(split.images[part]) for part in parts]))
    shown = ", ".join(map(str, values[:8].tolist())) + (", …" if len(values) > 8 else "")
    print(f"pixels: {values.dtype}, from {values.min()} to {values.max()}, {len(values)} distinct values ({shown})")


def draw(split: Split, output: Path, seed: int) -> list[Path]:
    """The first 25 images, nine at random with labels, one with its one-hot vector, and one of each class."""
    few = np.arange(min(25, len(split)))
    chosen = np.random.default_rng(seed).choice(len(split), min(9, len(split)), replace=False)
    each = one_of_each(split, seed)
    names, every = ([split.class_names[label] for label in split.labels[some]] for some in (chosen, each))
    figures = {
        "first": image_grid(split.images[few], title=f"The first {len(few)} training images"),
        "labelled": image_grid(split.images[chosen], names, title=f"{len(chosen)} training images at random"),
        "classes": image_grid(split.images[each], every, title="The classes"),
        "one_hot": one_hot_figure(split.images[chosen[:1]][0], int(split.labels[chosen[0]]), split.class_names),
    }
    return [save(figure, output / f"{name}.png") for name, figure in figures.items()]


def one_of_each(split: Split, seed: int) -> np.ndarray:
    """The index of an image of each of the first classes, drawn at random."""
    random = np.random.default_rng(seed)
    labels = np.unique(split.labels)[:SHEET]
    return np.array([random.choice(np.flatnonzero(split.labels == label)) for label in labels])
