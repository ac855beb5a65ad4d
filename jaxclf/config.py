"""`Config`: the dataset, model, optimizer and hyperparameters of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import flax.linen as nn

from jaxclf.augment import Augmentation, CenterCrop, CutMix, Mixer, Mixup, MixupOrCutMix
from jaxclf.datasets import Dataset
from jaxclf.errors import UserError, require
from jaxclf.losses import CrossEntropy, Loss
from jaxclf.metrics import Accuracy, Metric
from jaxclf.optimizers import Optimizer
from jaxclf.pretrained import Pretrained
from jaxclf.types import Remainder

if TYPE_CHECKING:
    OptionalDataset: TypeAlias = Dataset | None
else:
    OptionalDataset = object  # the command line narrows this to the class of the value, and would not narrow a union
COUNTS = ("epochs", "batch_size", "gradient_accumulation", "steps_per_execution", "eval_batch_size", "log_every")


@dataclass(frozen=True)
class Config:
    """A training run. On a CPU its results depend only on the config, the versions of libraries and the hardware."""

    dataset: OptionalDataset
    """Images and labels; None: they are given otherwise, or there are none, as for pretrained weights."""
    model: nn.Module
    """Linen module."""
    optimizer: Optimizer
    """Optimizer and learning-rate schedule."""
    epochs: int
    """Number of passes over the training set."""
    batch_size: int
    """Number of images per update, over all devices."""
    loss: Loss = CrossEntropy()
    """Training loss."""
    metrics: tuple[Metric, ...] = (Accuracy(),)
    """Metrics reported besides the loss."""
    augment: tuple[Augmentation, ...] = ()
    """Augmentations of training images, applied on the device in this order."""
    mixup: Mixup | CutMix | MixupOrCutMix | None = None
    """Mix training images and labels in pairs, by mixup or CutMix, after the augmentations (None: off)."""
    evaluation_transform: CenterCrop | None = None
    """Resize and crop images in evaluation and prediction, where nothing is augmented (None: as they are)."""
    init: Pretrained | None = None
    """Weights to start from (None: the initializers of the model)."""
    class_weights: Literal["equal", "balanced"] = "equal"
    """Per-class loss weights: equal, or balanced (inverse frequency)."""
    patience: int = 0
    """Early-stopping patience in epochs (0: off)."""
    non_finite: Literal["abort", "skip", "rollback"] = "abort"
    """On NaN/Inf: abort, skip the update, or roll back to the last checkpoint."""
    remainder: Remainder = "drop"
    """Last partial batch: drop, or pad and mask."""
    seed: int = 0
    """Random seed for initialization, shuffling, dropout and augmentation."""
    ema_decay: float = 0.0
    """Decay of the EMA of parameters, used for evaluation (0: off)."""
    batch_statistics: Literal["auto", "running", "precise", "frozen"] = "auto"
    """Statistics that batch normalization evaluates with: running averages; precise ones, of training images with the
    evaluated weights; frozen, the initial ones, in training, too. auto: precise with ema_decay, otherwise running."""
    gradient_accumulation: int = 1
    """Number of parts in which a batch is computed, to save memory."""
    steps_per_execution: int = 1
    """Number of updates per call of the compiled step. Logging and interrupts happen between calls."""
    evaluate_train: bool = False
    """Evaluate the whole training set after every epoch, too."""
    eval_batch_size: int | Literal["auto"] = "auto"
    """Batch size of evaluation; auto: from the model and the size of the images, at most 500."""
    log_every: int = 100
    """Steps between logged metrics."""
    checkpoint_every: int = 0
    """Steps between checkpoints within an epoch (0: only at the end of each epoch)."""

    def __post_init__(self):
        self._check_families()
        for name in COUNTS:
            value = getattr(self, name)
            automatic = name == "eval_batch_size" and value == "auto"
            require(automatic or (isinstance(value, int) and value >= 1), f"{name}={value}: expected at least 1")
        if not 0 <= self.ema_decay < 1:
            raise UserError(f"ema_decay={self.ema_decay}: expected at least 0 and below 1")
        for name in ("patience", "checkpoint_every"):
            if getattr(self, name) < 0:
                raise UserError(f"{name}={getattr(self, name)}: expected at least 0")
        for name, family in (("mixup", Mixer), ("evaluation_transform", CenterCrop), ("init", Pretrained)):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, family) or isinstance(value, type)):
                raise UserError(f"{name} is {value!r}, which is not a {family.__name__}")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"seed={self.seed}: expected 0 to {2**32 - 1}")

    def _check_families(self) -> None:
        families: dict[str, tuple[type, tuple]] = {
            "dataset": (Dataset, () if self.dataset is None else (self.dataset,)),
            "model": (nn.Module, (self.model,)),
            "optimizer": (Optimizer, (self.optimizer,)),
            "loss": (Loss, (self.loss,)),
            "metrics": (Metric, self.metrics),
            "augment": (Augmentation, self.augment),
        }
        for name, (family, members) in families.items():
            for member in members:
                if not isinstance(member, family) or isinstance(member, type):
                    raise UserError(f"{name} has {member!r}, which is not a {family.__name__}")
