"""Images of the report: the worst mistakes and a random sample, with saliency maps and measures of the maps."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn

from jaxclf import saliency
from jaxclf.errors import UserError
from jaxclf.inference.trained_model import TrainedModel
from jaxclf.reporting.report.examples import describe_image
from jaxclf.reporting.report.findings import EvaluatedSplit, find_worst_mistakes
from jaxclf.reporting.report.pictures import encode_map
from jaxclf.reporting.stats import Estimate, estimate
from jaxclf.saliency.names import get_name
from jaxclf.types import Variables

MAX_MISTAKES = 40
GRID = 8  # images that every method explains
MAP_SIDE = 64  # pixels of a map: noisy maps take more bytes than images
# Methods that compile quickly, which takes most of their time. With 64 rows integrated gradients computes one step at
# a time, which compiles faster than several.
METHODS = (saliency.IntegratedGradients(steps=16, max_rows=64), saliency.Gradient(), saliency.GradCam())
MEASURES = {
    "gini": "sparsity of the map, from 0 (all pixels equal) to 1 (a single pixel)",
    "completeness": "difference between the sum of the map and the change of the logit from a black image; 0 is best",
    "insertion": "mean probability while pixels are added to a black image, the most important first; high is good",
    "deletion": "mean probability while pixels are turned black, the most important first; low is good",
}


class MethodResult(NamedTuple):
    """Saliency maps of one method."""

    name: str
    maps: np.ndarray
    """[n, h, w, c]."""
    evaluations: float
    """Evaluations of the network per image."""
    measures: dict[str, Estimate]


def explain_images(run: TrainedModel, evaluated: EvaluatedSplit) -> dict[str, Any]:
    """Return the worst mistakes and a sample of the split, with the saliency maps of all methods."""
    split = evaluated.split
    mistakes, sample = find_worst_mistakes(evaluated, MAX_MISTAKES), split.sample_indices(GRID)
    indices = np.concatenate([mistakes, sample])
    images = run.transform(split.images[indices])
    results = _apply_methods(run, images, evaluated.predictions[indices].astype(np.int32), len(sample))
    shown = [describe_image(evaluated, int(i), image) for i, image in zip(indices, images, strict=True)]
    for i, each in enumerate(shown):
        of_image = results[:1] if i < len(mistakes) else results
        each["layers"] = {result.name: encode_map(result.maps[i], MAP_SIDE) for result in of_image}
    return {
        "mistakes": shown[: len(mistakes)],
        "grid": shown[len(mistakes) :],
        "explained": results,
        "measures": MEASURES,
        "smooth": [result.name for result in results if result.maps.shape[1] < run.input_shape[0]],
    }


def _apply_methods(run: TrainedModel, images: np.ndarray, targets: np.ndarray, measured: int) -> list[MethodResult]:
    """Compute the maps of all methods that support the network, and measure those of the last `measured` images."""
    variables = jax.device_get(run.variables)  # in a run of several processes only one writes the report
    results = []
    for method in METHODS:
        try:
            a = jax.device_get(method(run.model, variables, images, targets))
        except UserError:  # asking `find_error` first would trace everything twice
            continue
        last = jax.tree.map(lambda x: x[-measured:], a)
        measures = _measure_maps(run.model, variables, images[-measured:], targets[-measured:], last)
        results.append(MethodResult(get_name(type(method)), a.values, float(a.evaluations.mean()), measures))
    return results


def _measure_maps(
    model: nn.Module, variables: Variables, images: np.ndarray, targets: np.ndarray, a: saliency.Attribution
) -> dict[str, Estimate]:
    """Return the mean over images of each measure."""
    pixels = jax.image.resize(a.values.sum(axis=-1, keepdims=True), (*images.shape[:3], 1), "bilinear")
    # One number per pixel, and nothing else, so that the programs that measure one method serve all of them.
    alike = a._replace(values=np.asarray(pixels), delta=None)
    found = {"gini": saliency.gini(alike)}
    if a.delta is not None:
        found["completeness"] = saliency.completeness(a)
    found["insertion"] = saliency.insertion(model, variables, images, alike, targets=targets).auc
    found["deletion"] = saliency.deletion(model, variables, images, alike, targets=targets).auc
    return {name: estimate(jax.device_get(values).tolist()) for name, values in found.items()}
