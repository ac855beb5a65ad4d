"""Memory that a model needs for an image, computed from shapes alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr

from jaxclf.models.calling import get_mode, infer_shapes
from jaxclf.xla.interpreter import find_subjaxprs

EVAL_BYTES = 512 * 2**20  # of the largest operation of a batch
MAX_EVAL_BATCH = 500


def choose_eval_batch_size(model: nn.Module, image_shape: Sequence[int]) -> int:
    """Choose how many images are evaluated together: at most 500, and as many as a fixed amount of memory takes.

    It does not depend on the memory that is free or on the devices, so a run has the same batches on every machine.
    """
    return max(1, min(MAX_EVAL_BATCH, EVAL_BYTES // max(1, compute_image_bytes(model, image_shape))))


def compute_image_bytes(model: nn.Module, image_shape: Sequence[int]) -> int:
    """Return the bytes that the largest operation of a model reads and writes for each image, without parameters.

    Args:
        model: A Linen module.
        image_shape: Height, width and channels of an image.
    """

    def list_bytes(batch: int) -> list[int]:
        images = jax.ShapeDtypeStruct((batch, *image_shape), jnp.uint8)
        _, variables = infer_shapes(model, images)
        program = jax.make_jaxpr(partial(model.apply, **get_mode(model, False)))(variables, images)
        return list(_iterate_bytes(program.jaxpr))

    # What an image more adds: parameters, and what depends on them alone, stay the same.
    return max((two - one for one, two in zip(list_bytes(1), list_bytes(2), strict=False)), default=0)


def _iterate_bytes(jaxpr: Jaxpr | ClosedJaxpr) -> Iterator[int]:
    """Yield the bytes of the inputs and outputs of each operation, also of those inside calls and loops."""
    for equation in jaxpr.eqns:
        avals: list[Any] = [variable.aval for variable in (*equation.invars, *equation.outvars)]
        yield sum(aval.size * aval.dtype.itemsize for aval in avals if hasattr(aval, "dtype"))
        for each in find_subjaxprs(equation):
            yield from _iterate_bytes(each)
