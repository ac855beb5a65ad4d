"""The Parts benchmark: saliency methods on runs, scored against exact Shapley values of the parts of images."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from jaxclf import __version__
from jaxclf.api import Run
from jaxclf.config_io import to_json
from jaxclf.datasets.cartoons import VERSION
from jaxclf.datasets.cartoons.characters import CHARACTERS, Character
from jaxclf.datasets.cartoons.looks import SIDE
from jaxclf.datasets.parts import PartsImage, draw_backgrounds, make_mixed_characters
from jaxclf.errors import UserError, require
from jaxclf.io.files import atomic_write, hash_json, write_json
from jaxclf.io.progress import track_progress
from jaxclf.pretrained.initial import hash_variables
from jaxclf.saliency import Method
from jaxclf.saliency.parts.maps import REFERENCES, Map, draw_part_values, occlude_parts, resize_map
from jaxclf.saliency.parts.results import OCCLUSION, TRUTH, ScoredMethod, ScoredRun
from jaxclf.saliency.parts.study import PartsStudy
from jaxclf.saliency.parts.truth import compute_truth
from jaxclf.training.user_code import explain_out_of_memory

BACKGROUNDS = 16  # other backgrounds of an image
AT_ONCE = 256  # images whose logits are computed together
SHOWN = 6  # images whose maps are kept for the page


def find_characters(run: Run) -> tuple[Character, ...]:
    """Return the characters that the network of a run classifies.

    Raises:
        UserError: If its classes or its images are not those of a dataset of drawn characters.
    """
    shape = (SIDE, SIDE, 3)
    for characters in (CHARACTERS, make_mixed_characters()):
        if run.class_names == tuple(character.name for character in characters):
            seen = run.image_shape if run.image_shape != shape else run.input_shape
            require(seen == shape, f"the network of {run.path} sees images {list(seen)}: expected {list(shape)}")
            return characters
    raise UserError(
        f"{run.path} has the classes {', '.join(run.class_names[:3])}, …: expected the characters of the dataset "
        "Cartoons or PartsMix; train a config such as cartoons_cnn"
    )


def score_run(
    run: Run, name: str, methods: Mapping[str, Method], images: Sequence[PartsImage], cells: Path
) -> ScoredRun:
    """Score methods and reference maps on a run.

    Args:
        run: The run.
        name: Its name.
        methods: The saliency methods by name.
        images: The images, of the run's characters.
        cells: Directory where the scores of each method are kept. Those that it has are not computed again. The truth
            is written there too.

    Returns:
        The scores of the methods and of the reference maps.
    """
    cells.mkdir(parents=True, exist_ok=True)
    backgrounds = draw_backgrounds(BACKGROUNDS, seed=0)
    predict = PaddedPrediction(run)
    truths = [
        compute_truth(image, predict, backgrounds)
        for image in track_progress(images, len(images), f"{name}: images with and without parts")
    ]
    study = PartsStudy(find_characters(run), list(images), truths)
    write_json(cells / "truth.json", study.describe_truths())
    scored = _score_references(study, predict)
    about = {
        "weights": hash_variables(run.variables),
        "config": to_json(run.config),
        "images": len(images),
        "scores": study.scores,
        "version": [__version__, VERSION],
    }
    for method_name, method in track_progress(methods.items(), len(methods), f"{name}: methods"):
        path, identity = cells / f"{method_name}.npz", hash_json(about | {"method": to_json(method)})
        found = _read_cell(path, identity)
        if found is None:
            found = _score_method(run, method, study)
            _write_cell(path, identity, found)
        scored[method_name] = found
    return ScoredRun(name, study, scored)


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


def _score_references(study: PartsStudy, predict: PaddedPrediction) -> dict[str, ScoredMethod]:
    """Score the truth itself, occlusion by part, and maps that know nothing of the network."""
    painted = [
        draw_part_values(image, truth.shapley) for image, truth in zip(study.images[:SHOWN], study.truths, strict=False)
    ]
    began, targets = time.perf_counter(), study.targets
    of_images = [occlude_parts(image, predict, [int(of[i]) for of in targets]) for i, image in enumerate(study.images)]
    occluded = [list(maps) for maps in zip(*of_images, strict=True)]
    seconds = time.perf_counter() - began
    return {
        TRUTH: ScoredMethod(study.score_truths(), np.array(painted), 0.0),
        OCCLUSION: _keep_scores(study, occluded, seconds),
        **{
            name: _keep_scores(study, [[draw(image, i) for image in study.images] for i in range(len(targets))], 0.0)
            for name, draw in REFERENCES.items()
        },
    }


def _score_method(run: Run, method: Method, study: PartsStudy) -> ScoredMethod:
    """Explain every image for all targets of the study, and score the maps."""
    pixels = np.stack([image.pixels for image in study.images])
    groups = [slice(start, start + AT_ONCE) for start in range(0, len(pixels), AT_ONCE)]
    began = time.perf_counter()
    maps = [
        [of_image for group in groups for of_image in _explain(run, method, pixels[group], targets[group])]
        for targets in study.targets
    ]
    return _keep_scores(study, maps, time.perf_counter() - began)


def _explain(run: Run, method: Method, pixels: np.ndarray, targets: np.ndarray) -> Float[np.ndarray, "n h w"]:
    """Return the maps of images, summed over channels."""
    with explain_out_of_memory("explaining images", "limit the images in a model call: --METHOD.max-rows 8"):
        return np.asarray(run.explain(method, pixels, targets).values.sum(axis=-1))


def _keep_scores(study: PartsStudy, maps: Sequence[Sequence[Map]], seconds: float) -> ScoredMethod:
    """Return the scores of maps, and the first of those for the images' own characters."""
    shown = [resize_map(values, study.images[0].outside.shape) for values in maps[0][:SHOWN]]
    return ScoredMethod(study.score_maps(maps), np.array(shown), seconds)


def _read_cell(path: Path, identity: str) -> ScoredMethod | None:
    """Return the scores that an earlier call has kept, if all they depend on is the same."""
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as arrays:
        if str(arrays["identity"]) != identity:
            return None
        return ScoredMethod(arrays["scores"], arrays["maps"], float(arrays["seconds"]))


def _write_cell(path: Path, identity: str, scored: ScoredMethod) -> None:
    """Write the scores of a method."""
    with atomic_write(path) as partial, partial.open("wb") as file:
        np.savez(file, identity=identity, scores=scored.scores, maps=scored.maps, seconds=scored.seconds)
