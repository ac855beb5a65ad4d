"""Blocks of pixels as channels."""

from __future__ import annotations

from jaxtyping import Float

from jaxclf.types import Array


def space_to_depth(x: Float[Array, "b h w c"], block_size: int) -> Float[Array, "b h2 w2 c2"]:
    """Move blocks of pixels into channels.

    Args:
        x: Images or feature maps [b, h, w, c].
        block_size: Side of the square blocks. Rows and columns that do not fill a block are dropped.

    Returns:
        Maps [b, h // block_size, w // block_size, block_size² · c]. The channels of a pixel stay together, and the
        pixels of a block are in row-major order.
    """
    b, h, w, c = x.shape
    rows, columns = h // block_size, w // block_size
    blocks = x[:, : rows * block_size, : columns * block_size].reshape(b, rows, block_size, columns, block_size, c)
    return blocks.transpose(0, 1, 3, 2, 4, 5).reshape(b, rows, columns, block_size * block_size * c)
