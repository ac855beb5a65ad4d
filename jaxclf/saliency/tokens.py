"""Tokens [b, n, c] of transformers as a grid over the image, after the tokens that have no place in it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from jaxtyping import Float

from jaxclf.errors import require
from jaxclf.types import Array

MAX_OTHER_TOKENS = 5
"""Most tokens before the grid: a class token and four registers, as in DINOv2 and DINOv3."""


@dataclass(frozen=True)
class Grid:
    """The places of tokens in an image, row by row."""

    height: int
    width: int
    others: int
    """Number of tokens before those of the grid, such as a class token, a distillation token or registers."""

    def to_map(self, tokens: Float[Array, "*batch n c"]) -> Float[Array, "*batch h w c"]:
        """Return the tokens of the grid at their places."""
        *batch, _, channels = tokens.shape
        return tokens[..., self.others :, :].reshape(*batch, self.height, self.width, channels)


def list_grids(tokens: int, image_shape: tuple[int, ...], known: Iterable[tuple[int, ...]] = ()) -> list[Grid]:
    """Return the grids of square patches of an image that tokens can belong to.

    Args:
        tokens: The number of tokens, with up to `MAX_OTHER_TOKENS` before those of the grid.
        image_shape: Shape [b, h, w, c] of the images; images of another rank have no grid.
        known: Heights and widths of feature maps of the model, which decide where several grids are possible.
    """
    if len(image_shape) != 4:
        return []
    _, height, width, _ = image_shape
    common = math.gcd(height, width)
    sides = [(height // patch, width // patch) for patch in range(1, common + 1) if common % patch == 0]
    grids = [Grid(h, w, tokens - h * w) for h, w in sides if 1 < h * w <= tokens <= h * w + MAX_OTHER_TOKENS]
    chosen = [grid for grid in grids if (grid.height, grid.width) in known]
    return chosen if len(chosen) == 1 else grids


def find_grid(tokens: int, image_shape: tuple[int, ...], known: Iterable[tuple[int, ...]] = ()) -> Grid:
    """Return the only result of `list_grids`; raise UserError if there is none, or several."""
    grids = list_grids(tokens, image_shape, known)
    possible = " or ".join(f"{grid.height} x {grid.width} + {grid.others}" for grid in grids) or "no grid"
    require(
        len(grids) == 1,
        f"{tokens} tokens of images of shape {list(image_shape)} can be {possible}: expected one grid of square "
        f"patches with the aspect of the image, and at most {MAX_OTHER_TOKENS} tokens before it",
    )
    return grids[0]
