"""What a training step does, as one hashable value: static under jit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import flax.linen as nn
import numpy as np
import optax

from jaxclf.augment import Augmentation, CenterCrop, Mixer, TestTime
from jaxclf.config import Config
from jaxclf.losses import Loss
from jaxclf.metrics import Metric
from jaxclf.optimizers.grouped import GroupedOptimizer
from jaxclf.types import Split

NORM_EVERY = 20  # at most so many steps between two whose gradient norm is computed


@dataclass(frozen=True)
class StepConfig:
    """The parts of a `Config` that a step is compiled with."""

    model: nn.Module
    loss: Loss
    metrics: tuple[Metric, ...]
    transformation: optax.GradientTransformation
    augment: tuple[Augmentation, ...] = ()
    mixup: Mixer | None = None
    evaluation_transform: CenterCrop | None = None
    tta: TestTime | None = None
    """Test-time augmentation."""
    class_weights: tuple[float, ...] = ()
    """Loss weight of each class; empty: all are 1."""
    freeze: tuple[str, ...] = ()
    """Patterns of the paths of parameters whose gradients are not computed."""
    ema_decay: float = 0.0
    """Decay of the EMA of parameters; 0 keeps none."""
    gradient_accumulation: int = 1
    """Parts a batch is computed in."""
    batch_statistics: Literal["running", "precise", "frozen"] = "running"
    """Statistics that batch normalization evaluates with; frozen ones in training, too."""
    norm_every: int = 1
    """Steps between two whose gradient norm is computed."""
    skip_non_finite: bool = False
    """Skip updates that are not finite."""
    seed: int = 0


def build_step_config(config: Config, total_steps: int, train: Split | None = None) -> StepConfig:
    """Build the step of a config.

    Args:
        config: The config of the run.
        total_steps: Optimizer updates of the whole run, for the learning-rate schedule.
        train: The training images, which balanced class weights are computed from.
    """
    return StepConfig(
        model=config.model,
        loss=config.loss,
        metrics=config.metrics,
        transformation=config.optimizer.build(total_steps, config.epochs, config.model),
        augment=config.augment,
        mixup=config.mixup,
        evaluation_transform=config.evaluation_transform,
        class_weights=() if train is None or config.class_weights == "equal" else compute_balanced_weights(train),
        freeze=config.optimizer.freeze if isinstance(config.optimizer, GroupedOptimizer) else (),
        ema_decay=config.ema_decay,
        batch_statistics=choose_statistics(config),
        gradient_accumulation=config.gradient_accumulation,
        norm_every=min(config.log_every, NORM_EVERY),
        skip_non_finite=config.non_finite == "skip",
        seed=config.seed,
    )


def choose_statistics(config: Config) -> Literal["running", "precise", "frozen"]:
    """Return the statistics that are evaluated with: running averages do not belong to an EMA of the parameters."""
    if config.batch_statistics == "auto":
        return "precise" if config.ema_decay else "running"
    return config.batch_statistics


def compute_balanced_weights(split: Split) -> tuple[float, ...]:
    """Return weights inversely proportional to class frequencies, with a mean over images of 1."""
    counts = np.bincount(split.labels, minlength=len(split.class_names))
    present = np.count_nonzero(counts)
    return tuple(len(split) / (present * max(int(count), 1)) for count in counts)
