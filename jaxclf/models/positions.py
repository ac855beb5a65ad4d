"""Positions of the patches of an image, as vectors that are added to their embeddings."""

from __future__ import annotations

import jax
import numpy as np
from jaxtyping import Float

from jaxclf.types import Array


def compute_sin_cos_positions(grid: tuple[int, int], width: int) -> Float[np.ndarray, "gh gw c"]:
    """Compute 2-D positions from sines and cosines of the row and the column.

    X. Chen, S. Xie, K. He, "An Empirical Study of Training Self-Supervised Vision Transformers" (2021),
    arXiv:2104.02057.

    Args:
        grid: Numbers of rows and columns of patches.
        width: Length c of a vector, a multiple of 4.

    Returns:
        Vectors [gh, gw, c]: sines and cosines of the column, then those of the row, with wavelengths from 2π to almost
        20,000π patches.
    """
    frequencies = 10_000.0 ** -(np.arange(width // 4) / (width // 4))
    rows, columns = np.indices(grid)[..., None] * frequencies
    return np.concatenate([function(angle) for angle in (columns, rows) for function in (np.sin, np.cos)], axis=-1)


def resize_positions(positions: Float[Array, "gh gw c"], grid: tuple[int, int]) -> Float[Array, "gh2 gw2 c"]:
    """Resize a grid of positions by bicubic interpolation, with antialiasing where it becomes smaller.

    Args:
        positions: Vectors [gh, gw, c].
        grid: Numbers of rows and columns of the result.
    """
    if positions.shape[:2] == grid:
        return positions
    return jax.image.resize(positions, (*grid, positions.shape[-1]), "bicubic", antialias=True)
