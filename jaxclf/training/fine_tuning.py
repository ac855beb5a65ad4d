"""The config that fine-tunes pretrained weights on a folder of images: what is not given follows from its size."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from math import ceil
from typing import NamedTuple

import flax.linen as nn

from jaxclf.augment import Augmentation, CenterCrop, Flip, RandomResizedCrop
from jaxclf.config import Config
from jaxclf.datasets import ImageFolder
from jaxclf.errors import UserError, require
from jaxclf.optimizers import AdamW, WarmupCosine
from jaxclf.optimizers.groups import LayeredModel
from jaxclf.pretrained import Pretrained

FEW_IMAGES = 10  # training images of a class, below which none are held out for validation
SMALL_FOLDER = 5_000  # training images, below which batches are small
SEEN, FEWEST_EPOCHS, MOST_EPOCHS = 20_000, 3, 10  # images that are seen in all epochs, within these
FITTED = 1_000_000  # training images times classes, up to which the last layer is fitted first


@dataclass(frozen=True)
class Start:
    """What fine-tuning starts from."""

    model: nn.Module
    """The network of the weights."""
    init: Pretrained
    crop: CenterCrop | None
    """The evaluation transform that the weights expect."""
    input_shape: tuple[int, int, int]
    """Height, width and channels of what the network sees."""


@dataclass(frozen=True)
class Choices:
    """What the user may choose; None: it follows from the folder."""

    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    seed: int = 0


class FolderSize(NamedTuple):
    """How many images a folder has for training."""

    images: int
    classes: int
    smallest: int
    """Training images of the smallest class."""
    held_out: bool
    """Whether there are validation images besides those for testing."""


def hold_out_images(folder: ImageFolder) -> ImageFolder:
    """Return a folder with a tenth of the training images for validation, if no class has few of them.

    Without splits of its author, a fifth of every class is for testing.
    """
    size = measure_folder(replace(folder, train_fraction=0.8, test_fraction=0.2, validation_fraction=0.0))
    if size.held_out or size.smallest < FEW_IMAGES:
        return replace(folder, train_fraction=0.8, test_fraction=0.2)
    return replace(folder, train_fraction=0.7, test_fraction=0.2, validation_fraction=0.1)


def measure_folder(folder: ImageFolder) -> FolderSize:
    """Count the training images of a folder, without reading them."""
    classes = {name: files for name, files in folder.list_files().items() if len(files) >= folder.min_images}
    require(len(classes) > 1, f"{folder.root} has {len(classes)} classes with images; expected at least two")
    authors = {file.split for files in classes.values() for file in files}
    if None in authors:
        kept, held_out = folder.train_fraction, folder.train_fraction + folder.test_fraction < 1 - 1e-9
    else:
        held_out = authors >= {"validation", "test"}
        kept = 1.0 if held_out else 1 - folder.validation_fraction
        held_out |= folder.validation_fraction > 0
    known = [sum(file.split in (None, "train") for file in files) for files in classes.values()]
    counts = [max(1, round(count * kept)) for count in known]
    return FolderSize(sum(counts), len(counts), min(counts), held_out)


def build_config(folder: ImageFolder, start: Start, choices: Choices) -> tuple[Config, list[str]]:
    """Build the config of fine-tuning.

    The last layer is fitted first, then all layers are trained: AdamW with a lower rate from each layer to the one
    before it, warmup and cosine decay, frozen statistics of batch normalization, random crops and flips, an EMA of the
    parameters, and early stopping by validation.

    Args:
        folder: The images.
        start: What it starts from.
        choices: What the user has chosen.

    Returns:
        The config, and a line for each choice with its reason.
    """
    size = measure_folder(folder)
    batch_size = choices.batch_size or (32 if size.images < SMALL_FOLDER else 64)
    epochs = choices.epochs or min(max(ceil(SEEN / size.images), FEWEST_EPOCHS), MOST_EPOCHS)
    steps = epochs * ceil(size.images / batch_size)
    fitted = size.smallest > 1 and size.images * size.classes <= FITTED
    config = Config(
        dataset=folder,
        model=_replace_classes(start.model, size.classes),
        optimizer=AdamW(
            learning_rate=choices.learning_rate or 1e-4,
            weight_decay=0.05,
            layer_decay=0.75 if isinstance(start.model, LayeredModel) else 1.0,
            schedule=WarmupCosine(warmup=0.1),
        ),
        epochs=epochs,
        batch_size=batch_size,
        augment=_choose_augmentations(start.input_shape),
        evaluation_transform=start.crop,
        init=replace(start.init, head="probe" if fitted else "new"),
        patience=max(epochs // 2, 2) if size.held_out else 0,
        remainder="pad",
        seed=choices.seed,
        ema_decay=min(max(1 - 10 / steps, 0.9), 0.999),
        batch_statistics="frozen",
        log_every=10,
    )
    return config, _explain(size, config)


def _explain(size: FolderSize, config: Config) -> list[str]:
    """Return a line for each choice of a config, with its reason."""
    assert config.init is not None
    return [
        f"{size.images:,} training images in {size.classes} classes, {size.smallest:,} in the smallest",
        f"epochs {config.epochs}, batch size {config.batch_size}: about {SEEN:,} images in all, within {FEWEST_EPOCHS} "
        f"to {MOST_EPOCHS} epochs",
        "last layer: fitted to the features first, with a penalty chosen by cross-validation"
        if config.init.head == "probe"
        else f"last layer: new; to fit it first, a class needs two images, and images x classes at most {FITTED:,}",
        f"early stopping: after {config.patience} epochs without a better validation accuracy"
        if config.patience
        else f"early stopping: off, without validation images; classes need {FEW_IMAGES} images to hold some out",
        f"EMA of the parameters: decay {config.ema_decay:.3f}, from the number of steps",
    ]


def _replace_classes(model: nn.Module, classes: int) -> nn.Module:
    """Return a model with another number of classes."""
    if "classes" not in {field.name for field in fields(model)}:
        raise UserError(f"{type(model).__name__} has no field classes; a model needs it to be given other classes")
    return model.clone(classes=classes)


def _choose_augmentations(shape: tuple[int, int, int]) -> tuple[Augmentation, ...]:
    """Return the augmentations of photographs that a network sees in a shape: crops have to be square."""
    height, width, _ = shape
    return (RandomResizedCrop(height, scale=(0.35, 1.0)), Flip()) if height == width else (Flip(),)
