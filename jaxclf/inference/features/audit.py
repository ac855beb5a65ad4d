"""Audit of labeled features: likely label errors, near-duplicates and outliers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.special import softmax

from jaxclf.errors import require
from jaxclf.inference.features.folds import draw_folds
from jaxclf.inference.features.neighbors import find_other_neighbors
from jaxclf.inference.features.probe import fit_probes
from jaxclf.inference.features.selection import Labeled, compute_scale, cross_validate
from jaxclf.types import FileRecord, Splits

COMPARED = 50  # nearest images that vote on a label and may be near-duplicates: memory is linear in the images
# Of the votes of neighbors: Z. Wu, Y. Xiong, S. X. Yu and D. Lin, "Unsupervised Feature Learning via Non-Parametric
# Instance Discrimination" (2018), arXiv:1805.01978.
TEMPERATURE = 0.07
ODDS = 10  # how many times as probable as its label another class is at least, where the label is likely an error


class Neighborhoods(NamedTuple):
    """The nearest other images of each image, most similar first."""

    indices: Int[np.ndarray, "n k"]
    cosines: Float[np.ndarray, "n k"]
    """Cosine similarities of features from which the mean over all images is subtracted."""


class LabelCheck(NamedTuple):
    """Predictions of each image from others."""

    probabilities: Float[np.ndarray, "n classes"]
    penalty: float
    """Penalty of the probe, chosen by cross-validation."""


class DuplicatePair(NamedTuple):
    """Two images that are nearly equal, by their indices."""

    first: int
    second: int
    similarity: float
    """Cosine similarity; 1 for identical files."""
    identical: bool
    """Whether the files have the same bytes."""


@dataclass(frozen=True)
class Audit:
    """What was found about n images. An order has all their indices, the most suspicious one first."""

    labels: LabelCheck
    log_odds: Float[np.ndarray, " n"]
    """Log of the probability of the label over that of the most probable other class."""
    label_order: Int[np.ndarray, " n"]
    nearest: Int[np.ndarray, " n"]
    """The most similar other image."""
    similarities: Float[np.ndarray, " n"]
    """Cosine similarity to it."""
    outlier_scores: Float[np.ndarray, " n"]
    """Mean cosine distance to the nearest neighbors."""
    outlier_order: Int[np.ndarray, " n"]
    duplicates: tuple[DuplicatePair, ...]
    """The most similar pair first."""

    @property
    def error_count(self) -> int:
        """Number of likely label errors, which are the first ones of `label_order`."""
        return int((self.log_odds <= -np.log(ODDS)).sum())


def inspect_features(
    data: Labeled, files: Sequence[FileRecord], folds: int, neighbors: int, similarity: float
) -> Audit:
    """Audit labeled features of image files. The result does not depend on their order.

    Args:
        data: The features and labels of all images.
        files: The file of each image.
        folds: Folds of the cross-validation that predicts labels.
        neighbors: Number of nearest neighbors of the outlier score.
        similarity: Cosine similarity from which two images are near-duplicates.

    Returns:
        The audit.

    Raises:
        UserError: If there are too few images, or the similarity is not above 0 and at most 1.
    """
    check_settings(data.labels, folds, neighbors, similarity)
    order = np.array(sorted(range(len(files)), key=lambda i: (files[i].path, files[i].digest)))
    places = np.argsort(order)
    data = Labeled(data.features[order], data.labels[order], data.classes)
    found = find_neighborhoods(data.features, max(neighbors, COMPARED))
    near = Neighborhoods(found.indices[:, :COMPARED], found.cosines[:, :COMPARED])
    checked = check_labels(data, near, folds)
    log_odds = compute_log_odds(checked.probabilities, data.labels)
    # F. Angiulli and C. Pizzuti, "Fast Outlier Detection in High Dimensional Spaces" (2002), with cosine distances.
    scores = 1 - found.cosines[:, :neighbors].mean(axis=1)
    pairs = find_duplicates(near, [files[i].digest for i in order], similarity)
    return Audit(
        labels=checked._replace(probabilities=checked.probabilities[places]),
        log_odds=log_odds[places],
        label_order=order[np.argsort(log_odds, kind="stable")],
        nearest=order[near.indices[places, 0]],
        similarities=near.cosines[places, 0],
        outlier_scores=scores[places],
        outlier_order=order[np.argsort(-scores, kind="stable")],
        duplicates=tuple(pair._replace(first=int(order[pair.first]), second=int(order[pair.second])) for pair in pairs),
    )


def join_splits(splits: Splits) -> tuple[Int[np.ndarray, " n"], list[FileRecord]]:
    """Return the labels and files of the images of all splits, in the order of the splits."""
    present = {name: split for name, split in splits.items() if split is not None}
    labels = np.concatenate([split.labels for split in present.values()])
    return labels, [file for name in present for file in splits.files if file.split == name]


def check_settings(labels: Int[np.ndarray, " n"], folds: int, neighbors: int, similarity: float) -> None:
    """Raise UserError for settings that do not fit the images, before features are computed."""
    draw_folds(labels, folds, 0)
    most = len(labels) - 1
    require(1 <= neighbors <= most, f"neighbors={neighbors}: expected 1 to {most}, the number of other images")
    require(0 < similarity <= 1, f"similarity={similarity}: expected above 0, at most 1")


def find_neighborhoods(features: Float[np.ndarray, "n c"], count: int) -> Neighborhoods:
    """Return the nearest other images of each image, at most `count`.

    Features are centered, since those of most networks are not negative: otherwise cosines of different images would
    depend on what all images of a folder have in common, and no threshold would fit several folders.
    """
    centered = (features - features.mean(axis=0, dtype=np.float64)).astype(np.float32)
    indices, cosines = find_other_neighbors(centered, min(count, len(features) - 1))
    return Neighborhoods(indices, np.minimum(cosines, 1))


def check_labels(data: Labeled, near: Neighborhoods, folds: int) -> LabelCheck:
    """Predict each image by the mean of a linear probe, fitted on the other folds, and its nearest neighbors."""
    features = data.features * compute_scale(data.features)
    scaled = data._replace(features=features)
    drawn = draw_folds(data.labels, folds, 0)
    penalty = cross_validate(scaled, drawn).penalty
    used = np.stack([drawn != fold for fold in range(folds)])
    probes = fit_probes(features, data.labels, data.classes, np.full(folds, penalty, np.float32), used)
    logits = np.empty((len(drawn), data.classes), np.float32)
    for fold in range(folds):
        rows = drawn == fold
        logits[rows] = features[rows] @ probes.kernels[fold] + probes.biases[fold]
    return LabelCheck((softmax(logits, axis=1) + weigh_votes(data, near)) / 2, penalty)


def weigh_votes(data: Labeled, near: Neighborhoods) -> Float[np.ndarray, "n classes"]:
    """Return the fraction of each class among the neighbors of each image, weighted by their similarity."""
    weights = softmax(near.cosines / TEMPERATURE, axis=1)
    labels = data.labels[near.indices]
    return np.stack([np.where(labels == label, weights, 0).sum(axis=1) for label in range(data.classes)], axis=1)


def compute_log_odds(
    probabilities: Float[np.ndarray, "n classes"], labels: Int[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """Return the log of the probability of each label over that of the most probable other class.

    This is the margin of logits of G. Pleiss, T. Zhang, E. Elenberg and K. Q. Weinberger, "Identifying Mislabeled Data
    using the Area Under the Margin Ranking" (2020), arXiv:2001.10528. Predictions are out of fold instead of during
    training, as in C. G. Northcutt, L. Jiang and I. L. Chuang, "Confident Learning: Estimating Uncertainty in Dataset
    Labels" (2021), arXiv:1911.00068.
    """
    rows = np.arange(len(labels))
    logs = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))
    of_labels = logs[rows, labels]
    logs[rows, labels] = -np.inf
    return of_labels - logs.max(axis=1)


def find_duplicates(near: Neighborhoods, digests: Sequence[str], similarity: float) -> list[DuplicatePair]:
    """Return the pairs of nearly equal images, and those of each identical file and the first one, by similarity.

    Args:
        near: The nearest other images of each image; no others are compared.
        digests: Digest of the file of each image.
        similarity: The lowest similarity of a near-duplicate.
    """
    rows, columns = np.nonzero(near.cosines >= similarity)
    found = {
        (min(i, j), max(i, j)): float(cosine)
        for i, j, cosine in zip(
            rows.tolist(), near.indices[rows, columns].tolist(), near.cosines[rows, columns], strict=True
        )
    }
    firsts: dict[str, int] = {}
    for i, digest in enumerate(digests):
        first = firsts.setdefault(digest, i)
        if first != i:
            found[first, i] = 1.0
    pairs = [
        DuplicatePair(i, j, 1.0 if digests[i] == digests[j] else value, digests[i] == digests[j])
        for (i, j), value in found.items()
    ]
    return sorted(pairs, key=lambda pair: (-pair.similarity, not pair.identical, pair.first, pair.second))
