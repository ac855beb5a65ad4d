"""Types of activations and parameters."""

from __future__ import annotations

from typing import Literal

import jax

from jaxclf.errors import require

Dtype = Literal["float32", "bfloat16", "float64"]
"""Type of the activations of a model."""


def get_parameter_dtype(dtype: Dtype) -> Literal["float32", "float64"]:
    """Return the type of the parameters and logits of a model: float32, or float64 if its activations are.

    Raises:
        UserError: If float64 is not enabled in JAX.
    """
    if dtype != "float64":
        return "float32"
    require(jax.config.read("jax_enable_x64"), 'dtype="float64" needs JAX_ENABLE_X64=1')
    return "float64"
