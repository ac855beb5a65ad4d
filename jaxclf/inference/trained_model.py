"""A trained model and its data, rebuilt from a run directory without running any code found there."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import flax.linen as nn
import jax
import numpy as np

from jaxclf.config import Config
from jaxclf.config_io import from_json, import_modules
from jaxclf.errors import UserError
from jaxclf.io.files import read_json
from jaxclf.runs.directory import RunDirectory
from jaxclf.training.checkpoint import Checkpoints
from jaxclf.training.devices import Devices
from jaxclf.training.recipe import recipe_of
from jaxclf.training.step import create_state, predict, variables_of
from jaxclf.types import Batch, Split, Splits, Variables


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A trained run, for notebooks and scripts."""

    directory: RunDirectory
    config: Config
    step: int
    """Optimiser updates behind the weights."""
    class_names: tuple[str, ...]
    """A name for each logit."""
    image_shape: tuple[int, int, int]
    """Height, width and channels of the images."""
    variables: Variables
    """What the model is applied with: `run.model.apply(run.variables, images)`."""

    @property
    def model(self) -> nn.Module:
        """The network, a Linen module."""
        return self.config.model

    @cached_property
    def splits(self) -> Splits:
        """The data the run was made with, read on first use; raises UserError where its classes are others now."""
        splits = self.config.dataset.load()
        if splits.train.class_names != self.class_names or splits.train.image_shape != self.image_shape:

            def described(made_of: TrainedModel | Split) -> str:
                size, names = list(made_of.image_shape), made_of.class_names
                return f"{len(names)} classes of images {size}: {', '.join(names)}"

            raise UserError(
                f"the data is not what the run was made with:\nthen {described(self)}\nnow {described(splits.train)}"
            )
        return splits

    @cached_property
    def _probabilities(self):
        return jax.jit(lambda variables, images: jax.nn.softmax(predict(self.model, variables, images)))

    def predict(self, images: Any) -> np.ndarray:
        """Probabilities [b, classes] of images [b, h, w, c], integers in 0..255 or floats in [0, 1]."""
        images = np.asarray(images)
        if images.shape[1:] != self.image_shape:
            expected = ", ".join(map(str, self.image_shape))
            raise UserError(f"images of shape {list(images.shape)}: expected [b, {expected}]")
        size = self.config.eval_batch_size
        parts = [self._probabilities(self.variables, images[i : i + size]) for i in range(0, len(images), size)]
        classes = len(self.class_names)
        return np.concatenate(jax.device_get(parts)) if parts else np.zeros((0, classes), np.float32)


def load(
    path: str | Path,
    checkpoint: str = "last",
    weights: Literal["ema", "raw"] = "ema",
    imports: tuple[str, ...] = (),
) -> TrainedModel:
    """The run kept at `path`, with the weights of a checkpoint: `last`, `best` or a step.

    `weights="raw"` takes the parameters themselves where a run keeps their running mean. `imports` names modules of
    your own that the config uses. Raises UserError where something is missing; runs no code found in the directory.
    """
    directory = RunDirectory(path)
    if not directory.config.is_file():
        raise UserError(f"no run at {directory.path.absolute()}: it has no config.json")
    import_modules(imports)
    config = from_json(read_json(directory.config), imports)
    if not isinstance(config, Config):
        raise UserError(f"{directory.config} holds no config")
    if not directory.checkpoints.is_dir():
        raise UserError(f"no checkpoint under {directory.checkpoints}; train first")
    checkpoints = Checkpoints(directory.checkpoints)
    try:
        saved = checkpoints.find(checkpoint)
        image_shape = tuple(saved.notes["image_shape"])
        state = checkpoints.restore(saved, _abstract_state(config, image_shape))
    finally:
        checkpoints.close()
    return TrainedModel(
        directory, config, saved.step, tuple(saved.notes["class_names"]), image_shape, variables_of(state, weights)
    )


def _abstract_state(config: Config, image_shape: tuple[int, ...]) -> Any:
    images = jax.ShapeDtypeStruct((1, *image_shape), np.uint8)
    batch = Batch(images, jax.ShapeDtypeStruct((1,), np.int32), jax.ShapeDtypeStruct((1,), np.bool_))
    # The number of steps changes the learning rate, not the shape of the state.
    shapes = jax.eval_shape(partial(create_state, recipe_of(config, 1), batch))
    sharding = Devices.all().replicated
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes)
