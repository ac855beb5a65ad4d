"""Results of the Parts benchmark: scores of each image, their means with standard errors, and paired differences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxclf.saliency.parts.funnybirds import IRRELEVANT
from jaxclf.saliency.parts.maps import REFERENCES
from jaxclf.saliency.parts.scores import LOWER_IS_BETTER, average_defined
from jaxclf.saliency.parts.study import PartsStudy, Scores

TRUTH, OCCLUSION = "truth", "occlusion-by-part"
BASELINES = (TRUTH, OCCLUSION, *REFERENCES)
"""Rows that are no saliency methods: the truth, a map that needs the masks, and maps that do not use the network."""


@dataclass(frozen=True, eq=False)
class ScoredMethod:
    """The scores of a method for the images of a run, and its first maps."""

    scores: Scores
    maps: Float[np.ndarray, "shown h w"]
    seconds: float
    """Duration of the method for all images and classes, with compilation."""


@dataclass(frozen=True, eq=False)
class ScoredRun:
    """The results of one run."""

    name: str
    study: PartsStudy
    methods: dict[str, ScoredMethod]

    @property
    def characters(self) -> list[str]:
        """The name of each image's character."""
        return [self.study.characters[image.label].name for image in self.study.images]


def summarize_runs(runs: Sequence[ScoredRun]) -> dict[str, Any]:
    """Return the results of runs as JSON data, scores averaged over runs for each image.

    Args:
        runs: The results of each run for the same images.

    Returns:
        `methods` with mean, standard error over images and number of images of each score, best by s2 first;
        `differences`, each method minus the best of them; `left_out`, methods that not all networks support;
        `split_half_tau`, the agreement of the rankings of methods by two halves of the images; `runs` with measures
        of each network.
    """
    columns = runs[0].study.scores
    names = [name for name in runs[0].methods if all(name in run.methods for run in runs)]
    scores = {name: average_defined(np.stack([run.methods[name].scores for run in runs])) for name in names}
    methods = {name: _estimate_means(columns, of) for name, of in scores.items()}
    order = sorted(names, key=lambda name: (name != TRUTH, -(methods[name]["s2"]["mean"] or 0.0)))
    every = dict.fromkeys(name for run in runs for name in run.methods)
    return {
        "images": len(runs[0].study.images),
        "scores": columns,
        "methods": {name: methods[name] for name in order},
        "differences": {
            score: _compare_with_best(score, {name: of[:, i] for name, of in scores.items()}, methods)
            for i, score in enumerate(columns)
        },
        "left_out": [name for name in every if name not in names],
        "split_half_tau": _compute_split_half_tau(columns, scores, len(runs[0].study.characters)),
        "runs": {run.name: _describe_run(run) for run in runs},
    }


def _estimate_means(columns: Iterable[str], scores: Scores) -> dict[str, Any]:
    """Return the mean of each score by name."""
    return {name: _estimate_mean(column) for name, column in zip(columns, scores.T, strict=True)}


def _estimate_mean(values: Float[np.ndarray, " images"]) -> dict[str, Any]:
    """Return the mean of the values that are defined, its standard error and their number."""
    values = values[~np.isnan(values)]
    n = len(values)
    stderr = float(values.std(ddof=1) / np.sqrt(n)) if n > 1 else None
    return {"mean": float(values.mean()) if n else None, "stderr": stderr, "n": n}


def _compare_with_best(
    score: str, values: Mapping[str, Float[np.ndarray, " images"]], methods: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the best method by a score, and the paired difference of each other method from it."""
    sign = -1 if score in LOWER_IS_BETTER else 1
    rivals = [name for name in methods if name not in BASELINES and methods[name][score]["mean"] is not None]
    if not rivals:
        return {}
    best = max(rivals, key=lambda name: sign * methods[name][score]["mean"])
    others = {name: _estimate_mean(values[name] - values[best]) for name in methods}
    return {"best": best, "minus_best": {name: of for name, of in others.items() if name != best}}


def _compute_split_half_tau(
    columns: Iterable[str], scores: Mapping[str, Scores], characters: int
) -> dict[str, float | None]:
    """Return Kendall's tau of the rankings of methods by their means over two halves of the images, for each score.

    Of every two images of a character one is in each half.
    """
    compared = [of for name, of in scores.items() if name not in BASELINES]
    if not compared:
        return dict.fromkeys(columns)
    places = np.arange(len(compared[0]))
    second = (places + places // characters) % 2 == 1
    first, second = (np.array([average_defined(of[half]) for of in compared]) for half in (~second, second))
    return {name: compute_kendall_tau(first[:, i], second[:, i]) for i, name in enumerate(columns)}


def compute_kendall_tau(first: Float[np.ndarray, " n"], second: Float[np.ndarray, " n"]) -> float | None:
    """Return Kendall's tau-b, which corrects for ties; None if one of the rankings is constant."""
    signs = [np.sign(values[:, None] - values) for values in (first, second)]
    pairs = np.prod([np.abs(each).sum() for each in signs])
    return float((signs[0] * signs[1]).sum() / np.sqrt(pairs)) if pairs > 0 else None  # not for NaN


def _describe_run(run: ScoredRun) -> dict[str, Any]:
    """Return what a network does with the images, the time of each method and its scores."""
    truths = run.study.truths
    return {
        "accuracy": float(np.mean([truth.correct for truth in truths])),
        "background_independence": _estimate_mean(np.array(list(_check_clutter(run.study)))),
        "additive_share": _estimate_mean(np.array([truth.additive_share for truth in truths])),
        "background_share": _estimate_mean(np.array([truth.background_share for truth in truths])),
        "seconds": {name: of.seconds for name, of in run.methods.items()},
        "methods": {name: _estimate_means(run.study.scores, of.scores) for name, of in run.methods.items()},
    }


def _check_clutter(study: PartsStudy) -> Iterator[float]:
    """Yield 1.0 for each image whose logit falls by less than 5 % without its clutter, else 0.0; NaN without clutter.

    The mean is the score "background independence" of FunnyBirds, for the network.
    """
    for image, truth in zip(study.images, study.truths, strict=True):
        lost = truth.clutter < IRRELEVANT * abs(truth.logits[-1, image.label])
        yield float(lost) if image.clutter.any() else float("nan")
