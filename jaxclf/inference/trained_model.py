"""A trained model and its data, rebuilt from a run directory without running any code found there."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Float, PyTree

from jaxclf.augment import compute_input_shape, transform_images
from jaxclf.config import Config
from jaxclf.config_io import from_json, import_modules
from jaxclf.datasets import get_resizing, load_splits
from jaxclf.datasets.resizing import Resizing
from jaxclf.errors import UserError
from jaxclf.io.files import read_json
from jaxclf.models.features import compute_features
from jaxclf.runs.directory import RunDirectory
from jaxclf.training.checkpoint import Checkpoints
from jaxclf.training.devices import Devices
from jaxclf.training.evaluation import get_eval_batch_size
from jaxclf.training.state import create_state, get_variables, restore_state
from jaxclf.training.step import compute_logits
from jaxclf.training.step_config import build_step_config
from jaxclf.training.user_code import explain_out_of_memory
from jaxclf.types import Batch, Split, Splits, Variables
from jaxclf.xla.compilation import FastFunction

Model = TypeVar("Model", bound="TrainedModel")


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """The weights of a run at one step, with its config and data."""

    config: Config
    step: int
    """Optimizer updates done."""
    class_names: tuple[str, ...]
    """A name for each logit."""
    image_shape: tuple[int, int, int]
    """Height, width and channels of the images."""
    variables: Variables
    """Variables of the model: `run.model.apply(run.variables, images)`."""
    path: Path | None = None
    """The run directory; None if the run has none."""
    given_splits: Splits | None = None
    """The data, where it was given and is not loaded by the dataset of the config."""
    resizing: Resizing = Resizing()
    """How image files are resized, as in training."""

    @property
    def model(self) -> nn.Module:
        """The network, a Linen module."""
        return self.config.model

    @property
    def directory(self) -> RunDirectory:
        """The files of the run.

        Raises:
            UserError: If the run has no directory.
        """
        if self.path is None:
            raise UserError("this run has no directory; train it with fit(..., workdir=...)")
        return RunDirectory(self.path)

    @cached_property
    def splits(self) -> Splits:
        """The data of the run, loaded on first use.

        Raises:
            UserError: If its classes or image size are not those the run was trained with, or if images it was
                trained on would be tested.
        """
        splits = self.given_splits
        if splits is None:
            dataset = self.config.dataset
            splits = load_splits(dataset) if self.path is None else self.directory.load_recorded_splits(dataset)
        if splits.train.class_names != self.class_names or splits.train.image_shape != self.image_shape:

            def describe(source: TrainedModel | Split) -> str:
                size, names = list(source.image_shape), source.class_names
                return f"{len(names)} classes of images {size}: {', '.join(names)}"

            raise UserError(
                f"the data is not what the run was trained with:\nthen {describe(self)}\nnow {describe(splits.train)}"
            )
        return splits

    @cached_property
    def eval_batch_size(self) -> int:
        """Images that are evaluated together, at most."""
        return get_eval_batch_size(self.config, self.image_shape)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of what the network sees: images after the evaluation transform."""
        return compute_input_shape(self.config.evaluation_transform, self.image_shape)

    def transform(self, images: Any) -> np.ndarray:
        """Return what the network sees of images [b, h, w, c]: those after the evaluation transform."""
        return np.asarray(transform_images(self.config.evaluation_transform, np.asarray(images)))

    @cached_property
    def _logits(self) -> FastFunction:
        transform = self.config.evaluation_transform
        return FastFunction(lambda variables, images: compute_logits(self.model, variables, images, transform))

    @cached_property
    def _probabilities(self) -> FastFunction:
        logits = self._logits.function
        return FastFunction(lambda variables, images: jax.nn.softmax(logits(variables, images)))

    @cached_property
    def _features(self) -> dict[str | None, FastFunction]:
        """The functions that compute the features of layers, by layer."""
        return {}

    def predict(self, images: Any) -> Float[np.ndarray, "b classes"]:
        """Return the probabilities [b, classes] of images [b, h, w, c]: integers in 0..255 or floats in [0, 1]."""
        return self._apply_in_batches(self._probabilities, images, "prediction")

    def compute_logits(self, images: Any) -> Float[np.ndarray, "b classes"]:
        """Return the logits [b, classes] of images, as in `predict`."""
        return self._apply_in_batches(self._logits, images, "prediction")

    def features(self, images: Any, layer: str | None = None) -> Float[np.ndarray, "b c"]:
        """Return the pooled features [b, c] of images [b, h, w, c], see `compute_features`."""
        if layer not in self._features:
            transform = self.config.evaluation_transform
            self._features[layer] = FastFunction(
                lambda variables, images: compute_features(
                    self.model, variables, transform_images(transform, images), layer
                )
            )
        return self._apply_in_batches(self._features[layer], images, "computing features")

    def check_images(self, images: np.ndarray) -> np.ndarray:
        """Return images; raise UserError unless they have the size of those that the network was trained on."""
        if images.shape[1:] != self.image_shape:
            expected = ", ".join(map(str, self.image_shape))
            raise UserError(f"images of shape {list(images.shape)}: expected [b, {expected}]")
        return images

    def _apply_in_batches(self, function: FastFunction, images: Any, what: str) -> np.ndarray:
        """Return what a function of variables and images gives for images [b, h, w, c]; errors say `what` was done."""
        images, size = self.check_images(np.asarray(images)), self.eval_batch_size
        if len(images) == 0:
            one = jax.eval_shape(
                function.function, self.variables, jax.ShapeDtypeStruct((1, *self.image_shape), images.dtype)
            )
            return np.zeros((0, *one.shape[1:]), one.dtype)
        with explain_out_of_memory(what, f"lower eval_batch_size of the config; it is {size} now"):
            parts = [function(self.variables, images[i : i + size]) for i in range(0, len(images), size)]
            return np.concatenate(jax.device_get(parts))

    @classmethod
    def load(
        cls: type[Model],
        path: str | Path,
        checkpoint: str = "last",
        weights: Literal["ema", "raw"] = "ema",
        imports: tuple[str, ...] = (),
        splits: Splits | None = None,
        config: Config | None = None,
    ) -> Model:
        """Load a run. No code found in the directory is executed.

        Args:
            path: The run directory.
            checkpoint: "last", "best" (by validation) or a step.
            weights: "ema" for the exponential moving average of the parameters, where the run keeps one; "raw" for the
                parameters themselves.
            imports: Your own modules that define classes of the config.
            splits: The data, for runs whose dataset cannot be loaded again, such as arrays in memory.
            config: The config of the run, if it is known; by default config.json is read.

        Raises:
            UserError: If the run, the checkpoint or one of its classes is missing or damaged.
        """
        directory = RunDirectory(path)
        if not directory.config.is_file():
            raise UserError(f"no run at {directory.path.absolute()}: it has no config.json")
        if config is None:
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
            state = restore_state(checkpoints, saved, build_abstract_state(config, image_shape))
        finally:
            checkpoints.close()
        variables, class_names = get_variables(state, weights), tuple(saved.notes["class_names"])
        noted = saved.notes.get("resizing")  # of a bundle, which has no dataset
        resizing = get_resizing(config.dataset) if noted is None else from_json(noted)
        return cls(config, saved.step, class_names, image_shape, variables, Path(path), splits, resizing)


def build_abstract_batch(image_shape: tuple[int, ...]) -> Batch:
    """Return the shapes and dtypes of a batch of one image."""
    images = jax.ShapeDtypeStruct((1, *image_shape), np.uint8)
    return Batch(images, jax.ShapeDtypeStruct((1,), np.int32), jax.ShapeDtypeStruct((1,), np.bool_))


def build_abstract_state(config: Config, image_shape: tuple[int, ...]) -> PyTree:
    """Return the shapes, dtypes and shardings of the training state."""
    batch = build_abstract_batch(image_shape)
    # The number of steps changes the learning rate, not the shape of the state.
    shapes = jax.eval_shape(partial(create_state, build_step_config(config, 1), batch))
    sharding = Devices.all().replicated
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes)
