"""The config that fine-tunes pretrained weights on a folder of images: what is not given follows from its size."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields, replace
from math import ceil

import flax.linen as nn
import numpy as np

from jaxclf.augment import Augmentation, CenterCrop, Flip, RandomResizedCrop
from jaxclf.config import Config
from jaxclf.datasets import ImageFolder
from jaxclf.errors import UserError, require
from jaxclf.losses import CrossEntropy
from jaxclf.optimizers import AdamW, WarmupCosine
from jaxclf.optimizers.groups import LayeredModel
from jaxclf.pretrained import Pretrained
from jaxclf.types import Splits

LEARNING_RATE = 1e-4
FEW_IMAGES = 1_000  # training images, below which none are held out: a few would hardly tell epochs apart
SMALL_FOLDER = 5_000  # training images, below which batches are small
SEEN, FEWEST_EPOCHS, MOST_EPOCHS = 20_000, 3, 6  # images that are seen in all epochs, within these
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


def hold_out_images(folder: ImageFolder, chosen: Collection[str] = ()) -> ImageFolder:
    """Return a folder that holds out a tenth for validation, if it has no validation images and 1,000 to train on.

    With folders of splits it is a tenth of the training images, otherwise a tenth of all images.

    Args:
        folder: The folder.
        chosen: Names of fields that stay as they are.
    """
    splits = folder.load()
    if splits.validation is not None or len(splits.train) < FEW_IMAGES:
        return folder
    values = {"train_fraction": round(0.9 - folder.test_fraction, 9), "validation_fraction": 0.1}
    return replace(folder, **{name: value for name, value in values.items() if name not in chosen})


def count_smallest(splits: Splits) -> int:
    """Return the number of training images of the smallest class."""
    return int(np.bincount(splits.train.labels, minlength=len(splits.train.class_names)).min())


def build_config(folder: ImageFolder, splits: Splits, start: Start, choices: Choices) -> tuple[Config, list[str]]:
    """Build the config of fine-tuning.

    The last layer is fitted first, then all layers are trained: AdamW with a lower rate from each layer to the one
    before it, warmup and cosine decay, frozen statistics of batch normalization, random crops and flips, label
    smoothing, an EMA of the parameters, and early stopping by validation.

    Args:
        folder: The folder.
        splits: Its images.
        start: What it starts from.
        choices: What the user has chosen.

    Returns:
        The config, and a line for each choice that follows from the folder, with its reason.
    """
    images, classes, smallest = len(splits.train), len(splits.train.class_names), count_smallest(splits)
    require(
        classes > 1,
        f"{folder.root} has images of one class, {splits.train.class_names[0]}: expected a folder for each of several",
    )
    batch_size = (32 if images < SMALL_FOLDER else 64) if choices.batch_size is None else choices.batch_size
    epochs = min(max(ceil(SEEN / images), FEWEST_EPOCHS), MOST_EPOCHS) if choices.epochs is None else choices.epochs
    steps = epochs * ceil(images / max(batch_size, 1))
    fitted = smallest > 1 and images * classes <= FITTED
    config = Config(
        dataset=folder,
        model=_replace_classes(start.model, classes),
        optimizer=AdamW(
            learning_rate=LEARNING_RATE if choices.learning_rate is None else choices.learning_rate,
            weight_decay=0.05,
            layer_decay=0.75 if isinstance(start.model, LayeredModel) else 1.0,
            schedule=WarmupCosine(warmup=0.1),
        ),
        loss=CrossEntropy(label_smoothing=0.1),
        epochs=epochs,
        batch_size=batch_size,
        augment=_choose_augmentations(start.input_shape),
        evaluation_transform=start.crop,
        init=replace(start.init, head="probe" if fitted else "new"),
        patience=0 if splits.validation is None else max(epochs // 2, 2),
        remainder="pad",
        seed=choices.seed,
        ema_decay=min(max(1 - 1 / max(steps, 1), 0.9), 0.999),
        batch_statistics="frozen",
        log_every=10,
    )
    return config, _explain(splits, config, choices)


def _explain(splits: Splits, config: Config, choices: Choices) -> list[str]:
    """Return a line for each choice that follows from the folder, with its reason."""
    assert config.init is not None
    images, classes, smallest = len(splits.train), len(splits.train.class_names), count_smallest(splits)
    reasons = [
        f"{images:,} training images in {classes} classes, {smallest:,} in the smallest",
        "last layer: fitted to the features first, with a penalty chosen by cross-validation"
        if config.init.head == "probe"
        else f"last layer: new; to fit it first, a class needs two images, and images x classes at most {FITTED:,}",
        f"early stopping: after {config.patience} epochs without a better validation accuracy"
        if config.patience
        else f"early stopping: off, without validation images; a tenth is held out of {FEW_IMAGES:,} or more",
        f"EMA of the parameters: decay {config.ema_decay:.4f}, an average over about all steps",
    ]
    if choices.epochs is None:
        reasons.append(f"epochs: {config.epochs}, for {SEEN:,} images in all, but {FEWEST_EPOCHS} to {MOST_EPOCHS}")
    if choices.batch_size is None:
        reasons.append(f"batch size: {config.batch_size}; 32 for fewer than {SMALL_FOLDER:,} images, otherwise 64")
    return reasons


def _replace_classes(model: nn.Module, classes: int) -> nn.Module:
    """Return a model with another number of classes."""
    if "classes" not in {field.name for field in fields(model)}:
        raise UserError(f"{type(model).__name__} has no field classes; a model needs it to be given other classes")
    return model.clone(classes=classes)


def _choose_augmentations(shape: tuple[int, int, int]) -> tuple[Augmentation, ...]:
    """Return the augmentations of photographs that a network sees in a shape: crops have to be square."""
    height, width, _ = shape
    return (RandomResizedCrop(height, scale=(0.35, 1.0)), Flip()) if height == width else (Flip(),)
