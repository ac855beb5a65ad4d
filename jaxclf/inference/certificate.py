"""Checks of imported weights: against the library they come from, or against stored answers of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Num

from jaxclf.errors import UserError
from jaxclf.inference.bundle import Bundle
from jaxclf.io.progress import track_progress
from jaxclf.pretrained.comparison import compute_answers, join_answers, measure_differences, measure_distance
from jaxclf.pretrained.networks import find_network
from jaxclf.pretrained.references import make_reference_images, read_reference, take_pixels
from jaxclf.pretrained.source_network import SourceNetwork, describe_library

AT_ONCE = 8  # images whose gradients are computed together
TYPES = ("float64", "float32")


def compare_with_library(
    bundle: Bundle, arrays: Mapping[str, np.ndarray], images: Num[np.ndarray, "n side side 3"]
) -> dict[str, Any]:
    """Compare a bundle with the network of the library its weights come from.

    Args:
        bundle: The bundle.
        arrays: Its weights by the names of the library.
        images: Images as the network sees them, integers from 0 to 255.

    Returns:
        Differences in float64 and float32, as JSON data: of logits, gradients by the pixels and outputs of stages,
        relative to the largest value, and the number of images with the same most probable class.

    Raises:
        UserError: If PyTorch or the library is not installed.
    """
    layout, network = bundle.certificate["layout"], find_network(bundle.certificate["network"])
    library = describe_library(layout)
    if library is None:
        raise UserError(f"a comparison needs PyTorch and the library of the weights; pip install torch {layout}")
    source = SourceNetwork(layout, network, bundle.model, arrays)
    results: dict[str, Any] = {}
    for dtype in TYPES:
        found, expected = [], []
        batches = [images[i : i + AT_ONCE] for i in range(0, len(images), AT_ONCE)]
        for batch in track_progress(batches, len(batches), f"comparing in {dtype}, batches"):
            pixels = (batch / 255).astype(dtype)
            expected.append(source.compute_answers(pixels))
            targets = expected[-1].logits.argmax(axis=1)
            found.append(compute_answers(bundle.model, bundle.variables, pixels, targets, tuple(source.stages)))
        results[dtype] = measure_differences(join_answers(found), join_answers(expected))
    return {"with": library, "images": len(images), **results}


def compare_with_reference(bundle: Bundle) -> dict[str, Any] | None:
    """Compare a bundle with stored answers of its weights.

    Returns:
        Differences as `compare_with_library` gives them, without stages; None if no answers are stored.
    """
    reference = read_reference(bundle.certificate["source"]["sha256"])
    if reference is None:
        return None
    images, targets = make_reference_images(bundle.side), reference.logits.argmax(axis=1)
    results: dict[str, Any] = {}
    for dtype in TYPES:
        pixels: Float[np.ndarray, "b side side 3"] = (images / 255).astype(dtype)
        found = compute_answers(bundle.model, bundle.variables, pixels, targets)
        results[dtype] = {
            "logits": measure_distance(found.logits, reference.logits),
            "gradients": measure_distance(take_pixels(found.gradients), reference.gradients),
            "top1_equal": int((found.logits.argmax(axis=1) == targets).sum()),
        }
    return {"with": f"stored answers of {reference.library}", "images": len(images), **results}
