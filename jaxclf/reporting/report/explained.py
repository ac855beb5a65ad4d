"""Images of the page: the worst mistakes and some others, what the network finds in them, and how far to trust that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxclf import saliency
from jaxclf.errors import UserError
from jaxclf.inference.trained_model import TrainedModel
from jaxclf.reporting.report.findings import Evaluated, worst
from jaxclf.reporting.report.pictures import image_uri, layer_uri
from jaxclf.reporting.stats import Estimate, estimate
from jaxclf.saliency.names import name_of
from jaxclf.types import Variables

MISTAKES = 40
GRID = 8  # images that every method explains
SIDE = 128  # pixels of a picture, at most
LAYER = 64  # pixels of a map: noise takes more bytes than pictures
# Those that compile quickly, which is what they spend their time on; one step at once compiles faster than several.
METHODS = (saliency.IntegratedGradients(steps=16, max_rows=64), saliency.Gradient(), saliency.GradCam())
MEASURES = {
    "gini": "how few pixels the map picks out, from 0 (all alike) to 1 (one)",
    "completeness": "what the map leaves of the change in the logit from a black image: 0 is all accounted for",
    "insertion": "mean probability as pixels come to a black image, the most important first: high is good",
    "deletion": "mean probability as pixels turn black, the most important first: low is good",
}


class Explained(NamedTuple):
    """What a method says of some images."""

    name: str
    maps: np.ndarray  # [n, h, w, c]
    evaluations: float  # of the network, an image
    measures: dict[str, Estimate]


def images_and_maps(run: TrainedModel, evaluated: Evaluated) -> dict[str, Any]:
    """The worst mistakes and a few images, and what saliency methods say of them."""
    split = evaluated.split
    mistakes, some = worst(evaluated, MISTAKES), split.some(GRID)
    indices = np.concatenate([mistakes, some])
    images = split.images[indices]
    answers = explained(run, images, evaluated.predictions[indices].astype(np.int32), len(some))
    shown = [described(evaluated, int(i), image) for i, image in zip(indices, images, strict=True)]
    for place, each in enumerate(shown):
        each["layers"] = layers(answers[:1] if place < len(mistakes) else answers, place)
    return {
        "mistakes": shown[: len(mistakes)],
        "grid": shown[len(mistakes) :],
        "explained": answers,
        "measures": MEASURES,
        "smooth": [each.name for each in answers if each.maps.shape[1] < split.image_shape[0]],
    }


def layers(answers: Sequence[Explained], place: int) -> dict[str, str]:
    """The maps of one image by method, as pictures."""
    return {each.name: layer_uri(each.maps[place], LAYER) for each in answers}


def described(evaluated: Evaluated, i: int, image: np.ndarray) -> dict[str, Any]:
    """An image of the split, and how sure the network was of what."""
    split, label, found = evaluated.split, int(evaluated.split.labels[i]), int(evaluated.predictions[i])
    files = getattr(split.images, "paths", ())
    return {
        "index": i,
        "src": image_uri(image, SIDE),
        "file": str(files[i]) if files else "",
        "found": split.class_names[found],
        "true": split.class_names[label],
        "right": found == label,
        "confidence": float(evaluated.probabilities[i, found]),
        "true_confidence": float(evaluated.probabilities[i, label]),
    }


def explained(run: TrainedModel, images: np.ndarray, targets: np.ndarray, measured: int) -> list[Explained]:
    """What each method that suits the network says of images about target classes; the last so many are measured."""
    variables = jax.device_get(run.variables)  # of several processes one alone asks
    answers = []
    for method in METHODS:
        try:
            a = jax.device_get(method(run.model, variables, images, targets))
        except UserError:  # asking `refusal` first would trace everything twice
            continue
        last = jax.tree.map(lambda x: x[-measured:], a)
        found = measures(run.model, variables, images[-measured:], targets[-measured:], last)
        answers.append(Explained(name_of(type(method)), a.values, float(a.evaluations.mean()), found))
    return answers


def measures(
    model: Any, variables: Variables, images: np.ndarray, targets: np.ndarray, a: saliency.Attribution
) -> dict[str, Estimate]:
    """Means over the images of what is measured of an attribution."""
    pixels = jax.image.resize(a.values.sum(axis=-1, keepdims=True), (*images.shape[:3], 1), "bilinear")
    # One number a pixel and no more, so that all methods are measured by the same programs.
    alike = a._replace(values=np.asarray(pixels), delta=None)
    found = {"gini": saliency.gini(alike)}
    if a.delta is not None:
        found["completeness"] = saliency.completeness(a)
    found["insertion"] = saliency.insertion(model, variables, images, alike, targets=targets).auc
    found["deletion"] = saliency.deletion(model, variables, images, alike, targets=targets).auc
    return {name: estimate(jax.device_get(values).tolist()) for name, values in found.items()}
