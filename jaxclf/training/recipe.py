"""What a step of a config does: the config, as a recipe for step.py."""

from __future__ import annotations

import numpy as np

from jaxclf.config import Config
from jaxclf.training.step import Recipe
from jaxclf.types import Split

NORM_EVERY = 20  # most steps from one whose gradient's norm is taken to the next


def recipe_of(config: Config, total_steps: int) -> Recipe:
    """What a step of a config does."""
    return Recipe(
        model=config.model,
        loss=config.loss,
        metrics=config.metrics,
        transformation=config.optimizer.build(total_steps),
        augment=config.augment,
        mixup=config.mixup,
        ema_decay=config.ema_decay,
        gradient_accumulation=config.gradient_accumulation,
        norm_every=min(config.log_every, NORM_EVERY),
        skip_non_finite=config.non_finite == "skip",
        seed=config.seed,
    )


def balanced(split: Split) -> tuple[float, ...]:
    """Weights by which every class adds as much to the gradient as any other; their mean over images is 1."""
    counts = np.bincount(split.labels, minlength=len(split.class_names))
    present = np.count_nonzero(counts)
    return tuple(len(split) / (present * max(int(count), 1)) for count in counts)
