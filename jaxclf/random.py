"""Named random streams of a run."""

from __future__ import annotations

import jax
from jaxtyping import Key

STREAMS = ("init", "data", "augment", "dropout", "saliency", "mixup")


def stream(seed: int, name: str) -> Key[jax.Array, ""]:
    """The root key of a named random stream. Fold in the step or the example: randomness is an address.

    Streams are numbered by their place in `STREAMS`, so a new one is added at the end.
    """
    return jax.random.fold_in(jax.random.key(seed), STREAMS.index(name))
