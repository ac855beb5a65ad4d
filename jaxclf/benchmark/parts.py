"""The Parts benchmark: saliency methods on runs, scored against exact Shapley values of the parts of images."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from jaxclf.api import Run
from jaxclf.config_io import to_json
from jaxclf.datasets.cartoons import VERSION
from jaxclf.datasets.cartoons.characters import CHARACTERS
from jaxclf.datasets.parts import PartsImage, draw_backgrounds
from jaxclf.errors import require
from jaxclf.io.files import atomic_write, format_json
from jaxclf.io.progress import track_progress
from jaxclf.pretrained.initial import hash_variables
from jaxclf.saliency import Method
from jaxclf.saliency.parts.maps import (
    REFERENCES,
    Map,
    draw_part_values,
    occlude_parts,
    resize_map,
    sum_over_parts,
)
from jaxclf.saliency.parts.results import OCCLUSION, TRUTH, ScoredMethod, ScoredRun
from jaxclf.saliency.parts.scores import score_attribution, score_truth
from jaxclf.saliency.parts.truth import Truth, compute_truth

BACKGROUNDS = 16  # other backgrounds of an image
AT_ONCE = 256  # images whose logits are computed together
SHOWN = 6  # images whose maps are kept for the page


def check_run(run: Run, images: Sequence[PartsImage]) -> None:
    """Raise UserError unless the network of a run classifies the characters of the Cartoons dataset in their size."""
    names = tuple(character.name for character in CHARACTERS)
    require(
        run.class_names == names,
        f"{run.path} has the classes {', '.join(run.class_names[:3])}, …: expected the characters of the dataset "
        "Cartoons; train a config such as cartoons_cnn",
    )
    shape = images[0].pixels.shape
    require(run.image_shape == shape, f"{run.path} takes images {list(run.image_shape)}: expected {list(shape)}")


def score_run(
    run: Run, name: str, methods: Mapping[str, Method], images: Sequence[PartsImage], cells: Path
) -> ScoredRun:
    """Score methods and reference maps on a run.

    Args:
        run: The run.
        name: Its name.
        methods: The saliency methods by name.
        images: The images.
        cells: Directory where the scores of each method are kept. Those that it has are not computed again.

    Returns:
        The scores of the methods and of the reference maps.

    Raises:
        UserError: If the network does not classify cartoon characters.
    """
    check_run(run, images)
    cells.mkdir(parents=True, exist_ok=True)
    weights, backgrounds = hash_variables(run.variables), draw_backgrounds(BACKGROUNDS, seed=0)
    predict = PaddedPrediction(run)
    truths = [
        compute_truth(image, predict, backgrounds)
        for image in track_progress(images, len(images), f"{name}: images with and without parts")
    ]
    scored = _score_references(images, truths, predict)
    for method_name, method in track_progress(methods.items(), len(methods), f"{name}: methods"):
        about = format_json({"weights": weights, "method": to_json(method), "images": len(images), "version": VERSION})
        path = cells / f"{method_name}.npz"
        scored[method_name] = _read_cell(path, about) or _score_method(run, method, images, truths)
        _write_cell(path, about, scored[method_name])
    return ScoredRun(name, [CHARACTERS[image.label].name for image in images], truths, scored)


@dataclass(frozen=True, eq=False)
class PaddedPrediction:
    """The logits of a run for any number of images, compiled once."""

    run: Run

    def __call__(self, images: np.ndarray) -> Float[np.ndarray, "n classes"]:
        """Return the logits of images."""
        size, parts = min(AT_ONCE, self.run.eval_batch_size), []
        for start in range(0, len(images), size):
            batch = images[start : start + size]
            padding = np.zeros((size - len(batch), *batch.shape[1:]), batch.dtype)
            parts.append(self.run.compute_logits(np.concatenate([batch, padding]))[: len(batch)])
        return np.concatenate(parts)


def _score_references(
    images: Sequence[PartsImage], truths: Sequence[Truth], predict: PaddedPrediction
) -> dict[str, ScoredMethod]:
    """Score the truth itself, occlusion by part, and maps that know nothing of the network."""
    pairs = list(zip(images, truths, strict=True))
    scores = [list(score_truth(*pair).values()) for pair in pairs]
    painted = [draw_part_values(image, truth.shapley) for image, truth in pairs[:SHOWN]]
    began = time.perf_counter()
    occluded = [occlude_parts(image, predict, (image.label, truth.rival)) for image, truth in pairs]
    seconds = time.perf_counter() - began
    return {
        TRUTH: ScoredMethod(np.array(scores), np.array(painted), 0.0),
        OCCLUSION: _score_maps(images, truths, *map(list, zip(*occluded, strict=True)), seconds=seconds),
        **{
            name: _score_maps(images, truths, *([draw(image, i) for image in images] for i in (0, 1)), seconds=0.0)
            for name, draw in REFERENCES.items()
        },
    }


def _score_method(run: Run, method: Method, images: Sequence[PartsImage], truths: Sequence[Truth]) -> ScoredMethod:
    """Explain every image for its character and for the rival class, and score the maps."""
    pixels = np.stack([image.pixels for image in images])
    began = time.perf_counter()
    own, rival = (
        list(run.explain(method, pixels, np.array(targets)).values.sum(axis=-1))
        for targets in ([image.label for image in images], [truth.rival for truth in truths])
    )
    return _score_maps(images, truths, own, rival, time.perf_counter() - began)


def _score_maps(
    images: Sequence[PartsImage], truths: Sequence[Truth], own: Sequence[Map], rival: Sequence[Map], seconds: float
) -> ScoredMethod:
    """Score the maps of each image for its character and for the rival class."""
    scores = [
        list(score_attribution(sum_over_parts(image, first), sum_over_parts(image, second), truth).values())
        for image, first, second, truth in zip(images, own, rival, truths, strict=True)
    ]
    shown = [resize_map(values, images[0].outside.shape) for values in own[:SHOWN]]
    return ScoredMethod(np.array(scores), np.array(shown), seconds)


def _read_cell(path: Path, about: str) -> ScoredMethod | None:
    """Return the scores that an earlier call has kept, if they are of the same weights, method and images."""
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as arrays:
        if str(arrays["about"]) != about:
            return None
        return ScoredMethod(arrays["scores"], arrays["maps"], float(arrays["seconds"]))


def _write_cell(path: Path, about: str, scored: ScoredMethod) -> None:
    """Write the scores of a method."""
    with atomic_write(path) as partial, partial.open("wb") as file:
        np.savez(file, about=about, scores=scored.scores, maps=scored.maps, seconds=scored.seconds)
