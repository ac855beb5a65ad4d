"""The nearest neighbors among features, by cosine similarity."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

AT_ONCE = 256  # queries whose similarities are in memory


def find_neighbors(
    features: Float[np.ndarray, "n c"], queries: Float[np.ndarray, "q c"], count: int
) -> tuple[Int[np.ndarray, "q count"], Float[np.ndarray, "q count"]]:
    """Return the indices of the most similar features of each query by cosine, most similar first, and the cosines."""
    return _search(_normalize(features), _normalize(queries), count, others=False)


def find_other_neighbors(
    features: Float[np.ndarray, "n c"], count: int
) -> tuple[Int[np.ndarray, "n count"], Float[np.ndarray, "n count"]]:
    """Return what `find_neighbors` does for each of the features among the others, of which some may be equal to it."""
    known = _normalize(features)
    return _search(known, known, count, others=True)


def count_votes(labels: Int[np.ndarray, "q k"], classes: int) -> Int[np.ndarray, "q classes"]:
    """Return how many of the neighbors of each query have each class."""
    return np.stack([(labels == label).sum(axis=1) for label in range(classes)], axis=1)


def _search(
    known: Float[np.ndarray, "n c"], asked: Float[np.ndarray, "q c"], count: int, others: bool
) -> tuple[Int[np.ndarray, "q count"], Float[np.ndarray, "q count"]]:
    """Search for unit vectors; with `others`, query i is vector i and not a neighbor of itself."""
    indices = np.empty((len(asked), count), np.int64)
    cosines = np.empty((len(asked), count), np.float32)
    for start in range(0, len(asked), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        similarities = asked[part] @ known.T
        if others:
            rows = np.arange(len(similarities))
            similarities[rows, start + rows] = -np.inf
        indices[part] = _select_highest(similarities, count)
        cosines[part] = np.take_along_axis(similarities, indices[part], axis=1)
    return indices, cosines


def _select_highest(values: Float[np.ndarray, "q n"], count: int) -> Int[np.ndarray, "q count"]:
    """Return the places of the highest values of each row in decreasing order, without sorting the others."""
    places = np.broadcast_to(np.arange(values.shape[1]), values.shape)
    if count < values.shape[1]:
        places = np.argpartition(values, -count, axis=1)[:, -count:]
        places.sort(axis=1)  # of equal values the first one comes first
    order = np.argsort(-np.take_along_axis(values, places, axis=1), axis=1, kind="stable")
    return np.take_along_axis(places, order[:, :count], axis=1)


def _normalize(features: Float[np.ndarray, "n c"]) -> Float[np.ndarray, "n c"]:
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    return (features / np.where(norms > 0, norms, 1)).astype(np.float32)
