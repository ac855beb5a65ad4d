"""A network asked about picture files, a batch at a time, and what a saliency method says of its answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxclf import saliency
from jaxclf.datasets.decoding import decoders
from jaxclf.inference.explain import Explainer
from jaxclf.inference.preprocess import Preparation, Prepared
from jaxclf.inference.trained_model import TrainedModel
from jaxclf.random import stream
from jaxclf.training.devices import Devices

AT_ONCE = 64  # pictures, at most: decoding is what takes the time, and answers should not wait for it long


class Predicted(NamedTuple):
    """What is found in one picture."""

    path: str
    prepared: Prepared
    probabilities: np.ndarray  # [classes]
    values: np.ndarray | None  # [h, w, c], or smaller, what the predicted class owes to the pixels


class Unread(NamedTuple):
    """A picture that could not be read."""

    path: str
    reason: str


def predict_files(
    run: TrainedModel, paths: Sequence[str], preparation: Preparation, method: saliency.Method | None = None
) -> Iterator[Predicted | Unread]:
    """An answer for each file, in their order; only one batch of pictures is in memory at a time.

    With a method each prediction is explained. What is drawn for that depends on the run's seed and the file's place.
    """
    size = min(run.config.eval_batch_size, AT_ONCE, len(paths))
    baseline = Explainer(run, {}, Devices.all()).baseline(method) if method else None
    for start in range(0, len(paths), size):
        part = paths[start : start + size]
        prepared = list(decoders().map(preparation.attempt, map(Path, part)))
        images = np.zeros((size, *run.image_shape), np.uint8)  # of one shape, whatever is missing: one program
        for image, one in zip(images, prepared, strict=False):
            if isinstance(one, Prepared):
                image[:] = one.image
        probabilities = run.predict(images)
        values = None if method is None else explained(run, method, images, probabilities, start, baseline)
        for i, (path, one) in enumerate(zip(part, prepared, strict=True)):
            if isinstance(one, str):
                yield Unread(path, one)
            else:
                yield Predicted(path, one, probabilities[i], None if values is None else values[i])


def explained(
    run: TrainedModel, method: saliency.Method, images: np.ndarray, probabilities: np.ndarray, start: int, baseline: Any
) -> np.ndarray:
    """What the predicted classes of a batch owe to its pixels; its first image is number `start`."""
    root = stream(run.config.seed, "saliency")
    keys = jax.vmap(partial(jax.random.fold_in, root))(np.arange(start, start + len(images)))
    targets = probabilities.argmax(axis=1)
    return jax.device_get(method(run.model, run.variables, images, targets, key=keys, baseline=baseline).values)
