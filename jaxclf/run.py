"""The run directory: what a run writes, and `load`, which rebuilds one without running any code found there."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import flax.linen as nn
import jax
import numpy as np

from jaxclf.checkpoint import Checkpoints
from jaxclf.config import Config, differences, from_json, import_modules
from jaxclf.devices import Devices
from jaxclf.files import read_json, write_json
from jaxclf.launch import is_first
from jaxclf.lock import check_free, locked
from jaxclf.recipe import recipe_of
from jaxclf.step import create_state, predict, variables_of
from jaxclf.types import Batch, Split, Splits, UserError, Variables, require

PACKAGES = (
    "jaxclf", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tensorflow", "tensorflow-cpu",
    "tensorflow-datasets", "tensorboardX", "tyro",
)  # fmt: skip


BUSY = ("another training", "wait for it to end, or name another --workdir")  # what is said of a directory in use


class RunDirectory:
    """The files of one run, by name."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.config = self.path / "config.json"
        self.environment = self.path / "environment.json"
        self.metrics = self.path / "metrics.jsonl"
        self.summary = self.path / "summary.json"
        self.checkpoints = self.path / "checkpoints"
        self.tensorboard = self.path / "tensorboard"
        self.profile = self.path / "profile"

    def check(self, config: Any, force: bool = False) -> bool:
        """Whether the directory holds a finished run of this config (as JSON).

        Raises UserError where it holds a run of another config, unless by `force`, or is at work, or is a file.
        """
        require(not self.path.exists() or self.path.is_dir(), f"{self.path} is a file; name a directory with --workdir")
        if is_first():
            check_free(self.path, *BUSY)
        changed = differences(read_json(self.config), config) if self.config.exists() else []
        if changed and not force:
            raise UserError(
                f"{self.path} holds a run of another config; name another --workdir, undo the difference, or go on "
                "with it by --resume force:",
                changed,
            )
        return self.summary.exists() and not changed

    @contextmanager
    def begun(self, config: Any) -> Iterator[None]:
        """Hold the directory, which is made where it is not there, and write down what runs in it and on what."""
        with locked(self.path, *BUSY):
            self.summary.unlink(missing_ok=True)  # that of another config, with which it is not finished
            write_json(self.environment, environment())
            write_json(self.config, config)
            yield


def read_metrics(directory: RunDirectory) -> list[dict[str, Any]]:
    """The rows of a run's metrics.jsonl, as far as they can be read."""
    rows = []
    for line in directory.metrics.read_bytes().splitlines() if directory.metrics.exists() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue  # cut by whatever stopped the run
        if isinstance(row, dict) and {"split", "period", "epoch"} <= row.keys():
            rows.append(row)
    return rows


def environment() -> dict[str, Any]:
    """What a run ran on: versions, devices, flags, git revision."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "versions": versions(),
        "processes": jax.process_count(),
        "devices": [str(device) for device in jax.devices()],
        "device_kind": jax.devices()[0].device_kind,
        "flags": {name: os.environ[name] for name in ("XLA_FLAGS", "JAX_PLATFORMS") if name in os.environ},
        "git_revision": git_revision(),
        "command": sys.argv,
    }


def versions() -> dict[str, str]:
    """The versions of the packages a run's result may depend on, those that are installed."""
    return {name: found for name in PACKAGES if (found := installed(name))}


def installed(package: str) -> str | None:
    """The version of a package, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def git_revision() -> str | None:
    """The revision of the checkout this package is part of, `+` behind it where files changed, or None."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # or it is installed inside somebody else's checkout
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


@dataclass(frozen=True, eq=False)
class Run:
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

            def described(made_of: Run | Split) -> str:
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
) -> Run:
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
    return Run(
        directory, config, saved.step, tuple(saved.notes["class_names"]), image_shape, variables_of(state, weights)
    )


def _abstract_state(config: Config, image_shape: tuple[int, ...]) -> Any:
    images = jax.ShapeDtypeStruct((1, *image_shape), np.uint8)
    batch = Batch(images, jax.ShapeDtypeStruct((1,), np.int32), jax.ShapeDtypeStruct((1,), np.bool_))
    # The number of steps changes the learning rate, not the shape of the state.
    shapes = jax.eval_shape(partial(create_state, recipe_of(config, 1), batch))
    sharding = Devices.all().replicated
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes)
