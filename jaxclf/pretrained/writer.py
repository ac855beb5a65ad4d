"""Weight files that are written: safetensors."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from safetensors.numpy import save


def to_safetensors(weights: Mapping[str, np.ndarray]) -> bytes:
    """Return weights by name as the content of a safetensors file."""
    # The library writes the memory of an array, whatever its strides are. `ascontiguousarray` has no scalars.
    return save({name: np.asarray(array, order="C") for name, array in weights.items()})
