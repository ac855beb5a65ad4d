"""Classification by the nearest neighbors among features."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

AT_ONCE = 1024  # queries whose similarities are in memory


def find_neighbors(
    features: Float[np.ndarray, "n c"], queries: Float[np.ndarray, "q c"], count: int
) -> tuple[Int[np.ndarray, "q count"], Float[np.ndarray, "q count"]]:
    """Return the indices of the most similar features of each query by cosine, most similar first, and the cosines."""
    known, asked = _normalize(features), _normalize(queries)
    indices = np.empty((len(asked), count), np.int64)
    cosines = np.empty((len(asked), count), np.float32)
    for start in range(0, len(asked), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        similarities = asked[part] @ known.T
        indices[part] = np.argsort(-similarities, axis=1, kind="stable")[:, :count]
        cosines[part] = np.take_along_axis(similarities, indices[part], axis=1)
    return indices, cosines


def count_votes(labels: Int[np.ndarray, "q k"], classes: int) -> Int[np.ndarray, "q classes"]:
    """Return how many of the neighbors of each query have each class."""
    return np.stack([(labels == label).sum(axis=1) for label in range(classes)], axis=1)


def _normalize(features: Float[np.ndarray, "n c"]) -> Float[np.ndarray, "n c"]:
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    return (features / np.where(norms > 0, norms, 1)).astype(np.float32)
