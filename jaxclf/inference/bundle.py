"""A bundle: pretrained weights in the form of a run without training. Commands that take a run take a bundle."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import flax.linen as nn
import jax

from jaxclf.augment import CenterCrop
from jaxclf.config import Config
from jaxclf.config_io import to_json
from jaxclf.datasets import Resizing
from jaxclf.errors import require
from jaxclf.inference.trained_model import build_abstract_batch
from jaxclf.io.files import make_partial_path, read_json, sync, write_json
from jaxclf.optimizers import Sgd
from jaxclf.runs.directory import RunDirectory
from jaxclf.runs.environment import describe_environment
from jaxclf.training.checkpoint import Checkpoints
from jaxclf.training.state import check_variables, create_state
from jaxclf.training.step_config import build_step_config
from jaxclf.types import Variables

CERTIFICATE = "certificate.json"


@dataclass(frozen=True)
class Bundle:
    """Pretrained weights, their classes, and how images are prepared for them."""

    model: nn.Module
    variables: Variables
    class_names: tuple[str, ...]
    side: int
    """Height and width of the images that the network sees."""
    resize: int
    """Height and width of images before the square is cropped from their center."""
    interpolation: Literal["bilinear", "bicubic"]
    """Interpolation of the resizing."""
    certificate: Mapping[str, Any]
    """Where the weights come from, and how they were checked, as JSON data."""

    @property
    def resizing(self) -> Resizing:
        """How image files are resized before the crop."""
        return Resizing(crop_to_aspect_ratio=True, interpolation=self.interpolation)

    @property
    def config(self) -> Config:
        """The config of a run with these weights. It has no dataset, and is never trained."""
        crop = CenterCrop(self.side) if self.resize > self.side else None
        return Config(None, self.model, Sgd(learning_rate=0.0), epochs=1, batch_size=1, evaluation_transform=crop)


def write_bundle(path: Path, bundle: Bundle) -> None:
    """Write a bundle to a new directory, which appears whole or not at all.

    Raises:
        UserError: If the directory exists and is not empty.
    """
    check_empty(path)
    partial = RunDirectory(make_partial_path(path.absolute()))
    try:
        partial.path.mkdir(parents=True)
        write_json(partial.config, to_json(bundle.config))
        write_json(partial.environment, describe_environment())
        write_json(partial.path / CERTIFICATE, dict(bundle.certificate))
        _save_checkpoint(partial.checkpoints, bundle)
        if path.exists():
            path.rmdir()  # it is empty
        partial.path.rename(path)
        sync(path.absolute().parent)
    finally:
        shutil.rmtree(partial.path, ignore_errors=True)


def read_layout(path: Path) -> str | None:
    """Return the library that the weights of a bundle come from; None for a run, or if it is not known."""
    certificate = path / CERTIFICATE
    return read_json(certificate).get("layout") if certificate.is_file() else None


def check_empty(path: Path) -> None:
    """Raise UserError unless a directory is new or empty."""
    require(
        not path.exists() or (path.is_dir() and not any(path.iterdir())),
        f"{path} exists and is not an empty directory; name another with --workdir",
    )


def _save_checkpoint(directory: Path, bundle: Bundle) -> None:
    """Save the weights as the checkpoint of step 0."""
    step_config, shape = build_step_config(bundle.config, 1), (bundle.resize, bundle.resize, 3)
    batch = build_abstract_batch(shape)
    check_variables(step_config, batch, bundle.variables)
    state = jax.jit(partial(create_state, step_config, batch))(bundle.variables)
    notes = {
        "image_shape": list(shape),
        "class_names": list(bundle.class_names),
        "resizing": to_json(bundle.resizing),
    }
    checkpoints = Checkpoints(directory, writing=True)
    try:
        checkpoints.save(0, state, {}, notes)
    finally:
        checkpoints.close()
