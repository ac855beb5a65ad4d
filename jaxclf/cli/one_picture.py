"""A network asked about one picture: the likeliest classes, and what any class owes to the pixels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import UInt8

from jaxclf import saliency
from jaxclf.inference.explain import Explainer, refusal
from jaxclf.inference.preprocess import Preparation
from jaxclf.inference.trained_model import TrainedModel
from jaxclf.random import stream
from jaxclf.reporting.figures.overlay import LEAST_SIDE, overlay
from jaxclf.saliency.names import METHODS
from jaxclf.training.devices import Devices

TOP = 5  # classes that are named


class Answer(NamedTuple):
    """What is found in a picture."""

    top: dict[str, float]  # the probabilities of the likeliest classes, the highest first
    target: int  # the class that is explained
    seen: UInt8[np.ndarray, "h w 3"]  # the image the network was given, enlarged
    overlay: UInt8[np.ndarray, "h w 3"]  # what the class owes to it
    inverted: bool


def answer(
    run: TrainedModel, preparation: Preparation, picture: Path, method: saliency.Method, target: int | None = None
) -> Answer | str:
    """What a run says of a picture file, and a method of a class, the predicted one unless another is named.

    A picture that cannot be prepared is answered by why. What a method draws is that of predict.py's first picture.
    """
    prepared = preparation.attempt(picture)
    if isinstance(prepared, str):
        return prepared
    images = prepared.image[np.newaxis]
    (probabilities,) = run.predict(images)
    best = np.argsort(-probabilities, stable=True)
    target = int(best[0]) if target is None else target
    baseline = Explainer(run, {}, Devices.all()).baseline(method)
    key = stream(run.config.seed, "saliency")
    (values,) = jax.device_get(method(run.model, run.variables, images, target, key=key, baseline=baseline).values)
    top = {run.class_names[i]: float(probabilities[i]) for i in best[:TOP]}
    return Answer(top, target, enlarged(prepared.image), overlay(prepared.image, values), prepared.inverted)


def enlarged(image: UInt8[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "height width 3"]:
    """An image as large as its overlay, in colours."""
    times = -(-LEAST_SIDE // max(image.shape[:2]))
    return image.repeat(times, axis=0).repeat(times, axis=1).repeat(3 // image.shape[2], axis=2)


def fitting(run: TrainedModel, names: Iterable[str]) -> Iterator[tuple[str, saliency.Method]]:
    """Of the methods of these names those that fit the network, with their defaults."""
    for name in names:
        method = METHODS[name]()
        if refusal(run, method) is None:
            yield name, method
