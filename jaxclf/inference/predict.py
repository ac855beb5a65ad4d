"""Prediction of image files in batches, with a saliency map of each prediction on request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxclf import saliency
from jaxclf.datasets.decoding import get_decoders
from jaxclf.inference.explain import select_baseline
from jaxclf.inference.preprocess import PreprocessedImage, Preprocessor
from jaxclf.inference.trained_model import TrainedModel
from jaxclf.random import make_example_keys

AT_ONCE = 64  # images per batch, at most: decoding takes most of the time, and results should not wait for it long


class Prediction(NamedTuple):
    """The prediction of one image file."""

    path: str
    prepared: PreprocessedImage
    probabilities: np.ndarray
    """[classes]"""
    values: np.ndarray | None
    """[h, w, c], or smaller: the saliency map of the predicted class; None without a method."""


class UnreadableImage(NamedTuple):
    """An image file that could not be read."""

    path: str
    reason: str


def predict_files(
    run: TrainedModel, paths: Sequence[str], preprocess: Preprocessor, method: saliency.Method | None = None
) -> Iterator[Prediction | UnreadableImage]:
    """Predict image files, with one batch of images in memory at a time.

    Args:
        run: The run.
        paths: The files.
        preprocess: Reads the files.
        method: A saliency method to explain each prediction. Its random numbers depend on the run's seed and the
            position of the file alone.

    Yields:
        The result for each file, in order.
    """
    size = min(run.eval_batch_size, AT_ONCE, len(paths))
    baseline = select_baseline(run, method) if method else None
    for start in range(0, len(paths), size):
        part = paths[start : start + size]
        prepared = list(get_decoders().map(preprocess.try_read, map(Path, part)))
        images = np.zeros((size, *run.image_shape), np.uint8)  # always of this shape, so the model is compiled once
        for image, one in zip(images, prepared, strict=False):
            if isinstance(one, PreprocessedImage):
                image[:] = one.image
        probabilities = run.predict(images)
        seen = run.transform(images)
        values = None if method is None else _explain_batch(run, method, seen, probabilities, start, baseline)
        for i, (path, one) in enumerate(zip(part, prepared, strict=True)):
            if isinstance(one, str):
                yield UnreadableImage(path, one)
            else:
                shown = one._replace(image=seen[i])
                yield Prediction(path, shown, probabilities[i], None if values is None else values[i])


def _explain_batch(
    run: TrainedModel, method: saliency.Method, images: np.ndarray, probabilities: np.ndarray, start: int, baseline: Any
) -> np.ndarray:
    """Return the saliency maps of the predicted classes; `start` is the position of the first image."""
    keys = make_example_keys(run.config.seed, np.arange(start, start + len(images)))
    targets = probabilities.argmax(axis=1)
    return jax.device_get(method(run.model, run.variables, images, targets, key=keys, baseline=baseline).values)
