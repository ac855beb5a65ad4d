"""`Config`: everything the result of a run depends on, as one value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import flax.linen as nn

from jaxclf.augment import Augmentation, Mixup
from jaxclf.datasets import Dataset
from jaxclf.errors import UserError
from jaxclf.losses import CrossEntropy, Loss
from jaxclf.metrics import Accuracy, Metric
from jaxclf.optimizers import Optimizer
from jaxclf.types import Remainder

COUNTS = ("epochs", "batch_size", "gradient_accumulation", "steps_per_execution", "eval_batch_size", "log_every")


@dataclass(frozen=True)
class Config:
    """Everything a run's result depends on."""

    dataset: Dataset
    """Where images and labels come from."""
    model: nn.Module
    """The network."""
    optimizer: Optimizer
    """How gradients change the parameters."""
    epochs: int
    """Passes over the training images."""
    batch_size: int
    """Images of one optimiser update, over all devices."""
    loss: Loss = CrossEntropy()
    """What is minimised."""
    metrics: tuple[Metric, ...] = (Accuracy(),)
    """What is reported beside the loss."""
    augment: tuple[Augmentation, ...] = ()
    """Random changes to training images, on the device, in this order."""
    mixup: Mixup | None = None
    """Mixes every training image and its label with another one's, after the augmentations."""
    class_weights: Literal["equal", "balanced"] = "equal"
    """What a class counts for in the gradient: the same an image, or the same a class, however many images it has."""
    patience: int = 0
    """Epochs without a better validation after which training stops early; 0 never stops."""
    non_finite: Literal["abort", "skip", "rollback"] = "abort"
    """Where numbers are no longer finite: end the run, leave out the updates that are not, or go back to the last
    checkpoint and go on behind the interval."""
    remainder: Remainder = "drop"
    """What becomes of the short batch at the end of an epoch; padding counts for nothing."""
    seed: int = 0
    """Initial weights, order of the images, dropout and augmentation follow from it."""
    ema_decay: float = 0.0
    """Share of the running mean of the parameters kept each step; it is what is evaluated. 0 keeps none."""
    gradient_accumulation: int = 1
    """Equal parts a batch is computed in, to save memory; the update is the same (batch statistics apart)."""
    steps_per_execution: int = 1
    """Updates in one call of the compiled program; between calls the run logs, and may be interrupted."""
    evaluate_train: bool = False
    """After every epoch, also evaluate the whole training set."""
    eval_batch_size: int = 500
    """Images evaluated together."""
    log_every: int = 100
    """Steps between two log lines."""
    checkpoint_every: int = 0
    """Steps between two checkpoints within an epoch; 0 has them at the ends of epochs alone."""

    def __post_init__(self):
        self._check_families()
        for name in COUNTS:
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)}: expected at least 1")
        if not 0 <= self.ema_decay < 1:
            raise UserError(f"ema_decay={self.ema_decay}: expected at least 0 and below 1")
        for name in ("patience", "checkpoint_every"):
            if getattr(self, name) < 0:
                raise UserError(f"{name}={getattr(self, name)}: expected at least 0")
        if self.mixup is not None and not isinstance(self.mixup, Mixup):
            raise UserError(f"mixup holds {self.mixup!r}, which is no Mixup")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"seed={self.seed}: expected 0 to {2**32 - 1}")

    def _check_families(self) -> None:
        families: dict[str, tuple[type, tuple]] = {
            "dataset": (Dataset, (self.dataset,)),
            "model": (nn.Module, (self.model,)),
            "optimizer": (Optimizer, (self.optimizer,)),
            "loss": (Loss, (self.loss,)),
            "metrics": (Metric, self.metrics),
            "augment": (Augmentation, self.augment),
        }
        for name, (family, members) in families.items():
            for member in members:
                if not isinstance(member, family) or isinstance(member, type):
                    raise UserError(f"{name} holds {member!r}, which is no {family.__name__}")
