"""A study of the features of labeled images: linear probes, nearest neighbors, and a learning curve."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxclf.errors import require
from jaxclf.inference.features.folds import draw_folds
from jaxclf.inference.features.neighbors import count_votes, find_neighbors, find_other_neighbors
from jaxclf.inference.features.probe import Probes, fit_probes
from jaxclf.inference.features.selection import (
    Labeled,
    Validation,
    cross_validate,
    estimate_nested,
    score_probe,
)

NEIGHBORS = (1, 3, 5, 10, 20, 50)
SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)  # training images a class of the learning curve


@dataclass(frozen=True)
class SeedResult:
    """A probe whose penalty was chosen by cross-validation, with folds of one seed."""

    validation: Validation
    test: float
    """Accuracy on the test images, of a probe that was fitted on all training images."""


@dataclass(frozen=True)
class Study:
    """The results of a study."""

    seeds: tuple[SeedResult, ...]
    probe: Probes
    """The probe of the first seed."""
    nested: Float[np.ndarray, " k"]
    """Accuracy on each outer fold, with the penalty chosen within the others."""
    neighbors: int
    """Number of nearest neighbors, chosen by cross-validation."""
    neighbors_nested: Float[np.ndarray, " k"]
    """Accuracy of nearest neighbors on the same outer folds, with their number chosen within the others."""
    neighbors_test: float
    curve: dict[int, Float[np.ndarray, " s"]]
    """Test accuracy of each seed by the number of training images a class; the penalty grows with 1 / images."""


def study_features(train: Labeled, test: Labeled, folds: int, seeds: int) -> Study:
    """Study labeled features.

    Args:
        train: Features that probes are fitted on, and everything is chosen with.
        test: Features that are predicted at the end.
        folds: Folds of each cross-validation.
        seeds: Draws of the folds, and of the subsets of the learning curve.
    """
    require(seeds >= 1, f"seeds={seeds}: expected at least 1")
    results, probes = [], []
    for seed in range(seeds):
        validation = cross_validate(train, draw_folds(train.labels, folds, seed))
        probes.append(fit_all(train, validation.penalty))
        every = np.ones(len(test.labels), bool)
        results.append(SeedResult(validation, score_probe(probes[-1], 0, test, every)[1]))
    outer = draw_folds(train.labels, folds, 0)
    chosen = [choose_neighbors(train, outer != fold) for fold in range(folds)]
    neighbors = choose_neighbors(train, np.ones(len(train.labels), bool))
    found, _ = find_neighbors(train.features, test.features, min(max(NEIGHBORS), len(train.labels)))
    return Study(
        tuple(results),
        probes[0],
        estimate_nested(train, folds, 0),
        neighbors,
        np.array([score_neighbors(train, outer != fold, outer == fold, chosen[fold]) for fold in range(folds)]),
        float((vote(train, found[:, :neighbors]) == test.labels).mean()),
        measure_learning_curve(train, test, results[0].validation.penalty, seeds),
    )


def fit_all(train: Labeled, penalty: float) -> Probes:
    """Fit one probe on all examples."""
    every = np.ones((1, len(train.labels)), bool)
    return fit_probes(train.features, train.labels, train.classes, np.array([penalty], np.float32), every)


def vote(train: Labeled, neighbors: Int[np.ndarray, "q k"]) -> Int[np.ndarray, " q"]:
    """Return the most frequent class among the neighbors of each query; of equals, that of the nearest one."""
    labels = train.labels[neighbors]
    votes = count_votes(labels, train.classes).astype(np.float64)
    votes[np.arange(len(votes)), labels[:, 0]] += 0.5
    return votes.argmax(axis=1)


def score_neighbors(train: Labeled, known: Bool[np.ndarray, " n"], asked: Bool[np.ndarray, " n"], count: int) -> float:
    """Return the accuracy of nearest neighbors among some examples on others."""
    among = Labeled(train.features[known], train.labels[known], train.classes)
    found, _ = find_neighbors(among.features, train.features[asked], min(count, len(among.labels)))
    return float((vote(among, found) == train.labels[asked]).mean())


def choose_neighbors(train: Labeled, within: Bool[np.ndarray, " n"]) -> int:
    """Return the number of neighbors with the highest accuracy, each example of some asked among the others."""
    among = Labeled(train.features[within], train.labels[within], train.classes)
    others, _ = find_other_neighbors(among.features, min(max(NEIGHBORS), len(among.labels) - 1))
    counts = [count for count in NEIGHBORS if count <= others.shape[1]]
    return max(counts, key=lambda count: (vote(among, others[:, :count]) == among.labels).mean())


def measure_learning_curve(train: Labeled, test: Labeled, penalty: float, seeds: int) -> dict[int, np.ndarray]:
    """Return the test accuracy by the number of training images a class, for subsets drawn with each seed."""
    counts = np.bincount(train.labels, minlength=train.classes)
    sizes = [size for size in SIZES if size < counts.max()]
    used, penalties = [], []
    for size in sizes:
        for seed in range(seeds):
            random = np.random.default_rng(seed)
            ranks = np.empty(len(train.labels), np.int64)
            for label in range(train.classes):
                places = np.flatnonzero(train.labels == label)
                ranks[places] = random.permutation(len(places))
            used.append(ranks < size)
            penalties.append(penalty * len(train.labels) / used[-1].sum())
    if not used:
        return {}
    probes = fit_probes(train.features, train.labels, train.classes, np.array(penalties, np.float32), np.stack(used))
    every = np.ones(len(test.labels), bool)
    accuracies = np.array([score_probe(probes, i, test, every)[1] for i in range(len(used))])
    return dict(zip(sizes, accuracies.reshape(len(sizes), seeds), strict=True))
