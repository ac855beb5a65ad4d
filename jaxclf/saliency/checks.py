"""Checks of the arguments of saliency methods and metrics. Those that read values are skipped inside a program."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Bool, PyTree, Shaped

from jaxclf.errors import UserError
from jaxclf.saliency.query import Model, bind_variables, check_logits
from jaxclf.types import Array, Logits, to_unit_range

NAMED = 5  # images that an error names
TESTED = 4  # images whose outputs are tested
TOLERANCE = 0.01  # of sums of probabilities, which may be bfloat16
_TESTED_MODELS: set[Model] = set()


def require_hashable(**arguments: Any) -> None:
    """Raise UserError that names the first argument that is not hashable, as static arguments must be."""
    for name, value in arguments.items():
        try:
            hash(value)
        except TypeError:
            raise UserError(
                f"{name} is of type {type(value).__name__}, which is not hashable, and it is static under jit; "
                "pass a function, a frozen dataclass or a tuple, without lists or arrays in it"
            ) from None


def require_classes(model: Model, variables: PyTree, images: Array, targets: Any) -> None:
    """Raise UserError if a target is not a class of the model. Under jit, targets are not known and not checked."""
    if has_tracer(variables, images, targets):
        return
    classes = compute_logits.eval_shape(model, variables, images).shape[-1]
    wrong = [int(target) for target in np.ravel(jax.device_get(targets)) if not 0 <= target < classes]
    if wrong:
        raise UserError(f"target {wrong[0]} is no class of the model: expected 0 to {classes - 1}")


def convert_targets(targets: Any) -> Any:
    """Return targets that are a list or tuple as an array, so that others of the same number do not recompile."""
    return np.asarray(targets) if isinstance(targets, list | tuple) else targets


def require_finite(images: Shaped[Array, "b ..."]) -> None:
    """Raise UserError that names the images with pixels that are NaN or infinite. Under jit they are not checked."""
    if not jnp.issubdtype(images.dtype, jnp.floating) or not _is_readable(images):
        return
    finite = _find_finite(np, images) if isinstance(images, np.ndarray) else jax.device_get(_find_finite_jit(images))
    wrong = np.flatnonzero(~finite)
    if wrong.size:
        named = ", ".join(map(str, wrong[:NAMED])) + (", ..." if wrong.size > NAMED else "")
        raise UserError(
            f"{wrong.size} of {len(finite)} images have pixels that are NaN or infinite: number {named}, counted from "
            "0; leave them out, or replace these pixels"
        )


def _find_finite(numbers: Any, images: Shaped[Array, "b ..."]) -> Bool[Array, " b"]:
    return numbers.isfinite(images).all(axis=tuple(range(1, images.ndim)))


_find_finite_jit = jax.jit(partial(_find_finite, jnp))


def warn_of_probabilities(model: Model, variables: PyTree, images: Array, scores: Array, kind: str) -> None:
    """Warn, once for each model, if its outputs are nonnegative and sum to 1, as those of a softmax do.

    The logits are computed only if all scores could be probabilities, for the first images of the first call with a
    model. Later calls cost a look-up.
    """
    if model in _TESTED_MODELS or not _is_readable(variables, images, scores):
        return
    _TESTED_MODELS.add(model)
    first = jax.device_get(scores)
    if kind == "logit" and not ((first >= 0) & (first <= 1 + TOLERANCE)).all():
        return
    outputs = jax.device_get(compute_logits(model, variables, _take_first(images)))
    outputs = outputs.astype(np.float32)
    if outputs.shape[1] > 1 and (outputs >= 0).all() and (abs(outputs.sum(axis=1) - 1) < TOLERANCE).all():
        warnings.warn(
            "the outputs of the model are nonnegative and sum to 1, as probabilities do, and saliency methods expect "
            "logits: their gradients vanish where the model is confident. Pass the model without its final softmax; "
            'score="probability" explains probabilities',
            stacklevel=3,
        )


@jax.jit
def _take_first(images: Shaped[Array, "b ..."]) -> Shaped[Array, "few ..."]:
    return images[:TESTED]


def is_inside_program(*trees: PyTree) -> bool:
    """Return True while JAX traces a program, as under jit, even if these arrays are constants in it."""
    # New arrays are traced, too. An iota, because zeros would copy a scalar to the device.
    return has_tracer(*trees) or has_tracer(jax.lax.iota(jnp.int32, 1))


def has_tracer(*trees: PyTree) -> bool:
    """Return True if an array of some trees is traced, as under jit."""
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(trees))


def _is_readable(*trees: PyTree) -> bool:
    """Return True if this process has all values of some arrays, outside a program."""
    arrays = [leaf for leaf in jax.tree.leaves(trees) if isinstance(leaf, jax.Array)]
    return not is_inside_program(*trees) and all(array.is_fully_addressable for array in arrays)


@partial(jax.jit, static_argnums=0)  # often only traced: jit caches the traced program and its shapes
def compute_logits(model: Model, variables: PyTree, images: Array) -> Logits:
    """Compute the logits of images."""
    images = to_unit_range(images)
    return check_logits(bind_variables(model, variables)(images), images)
