"""Named random streams of a run."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import partial

import jax
import numpy as np
from jaxtyping import Int, Key

STREAMS = ("init", "data", "augment", "dropout", "saliency", "mixup")


def make_key(seed: int, stream: str) -> Key[jax.Array, ""]:
    """Return the root key of a named random stream, to be folded with the step or the index of an example.

    Args:
        seed: The seed of the run.
        stream: One of `STREAMS`, which are numbered by their position there, so new ones are appended; or a stream of
            a model of your own, numbered by its name.
    """
    number = STREAMS.index(stream) if stream in STREAMS else zlib.crc32(stream.encode()) | 2**31
    return jax.random.fold_in(jax.random.key(seed), number)


def make_example_keys(seed: int, indices: Int[np.ndarray, " n"] | Sequence[int]) -> Key[jax.Array, " n"]:
    """Return the keys with which saliency methods explain examples, so that results do not depend on the batch.

    Args:
        seed: The seed of the run.
        indices: The indices of the examples in their split or list of files.

    Returns:
        Keys [n] of the stream "saliency".
    """
    return jax.vmap(partial(jax.random.fold_in, make_key(seed, "saliency")))(np.asarray(indices))
