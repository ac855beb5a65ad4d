"""Predictions of the demo: the most probable classes of one image and the attribution of any class."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import UInt8

from jaxclf import saliency
from jaxclf.figures.overlay import MIN_SIDE, overlay_map, to_uint8
from jaxclf.inference.explain import find_error, select_baseline
from jaxclf.inference.preprocess import Preprocessor
from jaxclf.inference.trained_model import TrainedModel
from jaxclf.random import make_example_keys
from jaxclf.saliency.names import METHODS

TOP = 5  # number of classes to show


class ImagePrediction(NamedTuple):
    """Prediction and attribution of one image."""

    top: dict[str, float]  # probabilities of the most probable classes, in descending order
    target: int  # the class that is explained
    network_input: UInt8[np.ndarray, "h w 3"]  # the preprocessed image, enlarged
    overlay: UInt8[np.ndarray, "h w 3"]  # the attribution of the target class
    inverted: bool  # the image was dark on light


def predict_image(
    run: TrainedModel, preprocessor: Preprocessor, path: Path, method: saliency.Method, target: int | None = None
) -> ImagePrediction | str:
    """Predict the class of an image file and explain one class.

    The attribution equals that of `jaxclf predict --explain` for its first image.

    Args:
        run: The trained model.
        preprocessor: Converts the file to an input of the network.
        path: The image file.
        method: The saliency method.
        target: The class to explain; None for the predicted one.

    Returns:
        The prediction, or the reason why the file cannot be used.
    """
    preprocessed = preprocessor.try_read(path)
    if isinstance(preprocessed, str):
        return preprocessed
    images = preprocessed.image[np.newaxis]
    (probabilities,) = run.predict(images)
    images = run.transform(images)
    best = np.argsort(-probabilities, stable=True)
    target = int(best[0]) if target is None else target
    baseline = select_baseline(run, method)
    keys = make_example_keys(run.config.seed, [0])
    (values,) = jax.device_get(method(run.model, run.variables, images, target, key=keys, baseline=baseline).values)
    top = {run.class_names[i]: float(probabilities[i]) for i in best[:TOP]}
    image = to_uint8(images[0])
    return ImagePrediction(top, target, enlarge(image), overlay_map(image, values), preprocessed.inverted)


def enlarge(image: UInt8[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "height width 3"]:
    """Enlarge an image to the size of its overlay, in RGB, by repeating pixels."""
    factor = -(-MIN_SIDE // max(image.shape[:2]))
    return image.repeat(factor, axis=0).repeat(factor, axis=1).repeat(3 // image.shape[2], axis=2)


def select_methods(run: TrainedModel, names: Iterable[str]) -> Iterator[tuple[str, saliency.Method]]:
    """Yield the names and instances, with default fields, of those methods that support the network."""
    for name in names:
        method = METHODS[name]()
        if find_error(run, method) is None:
            yield name, method
