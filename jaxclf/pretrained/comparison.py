"""Comparison of a ported network with its source: logits, gradients by the pixels, and outputs of stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxclf.models.taps import apply_with_taps
from jaxclf.types import Array, Variables
from jaxclf.xla.convolutions import rewrite_convolutions


class Answers(NamedTuple):
    """What a network computes for images."""

    logits: Float[np.ndarray, "b classes"]
    gradients: Float[np.ndarray, "b h w c"]
    """Gradient of the logit of one class of each image by its pixels in [0, 1]."""
    stages: dict[str, np.ndarray]
    """Outputs of stages by our path, with channels last."""


def compute_answers(
    model: nn.Module,
    variables: Variables,
    images: Float[np.ndarray, "b h w c"],
    targets: Int[np.ndarray, " b"],
    stages: Sequence[str] = (),
) -> Answers:
    """Compute what our network answers, in the type of the images.

    Args:
        model: The model, with a field `dtype`.
        variables: Its variables.
        images: Images [b, h, w, c] in [0, 1], float32 or float64.
        targets: The class of each image whose logit is differentiated.
        stages: Paths of the layers whose outputs are returned.
    """
    with jax.enable_x64(True), jax.default_matmul_precision("float32"):
        typed = model.clone(dtype=images.dtype.name)
        weights = jax.tree.map(partial(np.asarray, dtype=images.dtype), variables)
        (_, (logits, outputs)), gradients = _differentiate(typed, tuple(stages), weights, images, targets)
        named = {path: np.asarray(each[0]) for path, each in outputs.items()}
        return Answers(np.asarray(logits), np.asarray(gradients), named)


@partial(jax.jit, static_argnums=(0, 1))
def _differentiate(
    model: nn.Module, stages: tuple[str, ...], variables: Variables, images: Array, targets: Array
) -> Any:
    """Return the sum of the logits of the targets, with all logits and outputs, and its gradient by the pixels."""

    def score(pixels: Array) -> tuple[Array, Any]:
        logits, outputs = apply_with_taps(model, variables, pixels, lambda module: "/".join(module.path) in stages)
        return jnp.take_along_axis(logits, targets[:, None], axis=1).sum(), (logits, outputs)

    return rewrite_convolutions(jax.value_and_grad(score, has_aux=True))(images)


def measure_differences(found: Answers, expected: Answers) -> dict[str, Any]:
    """Return how far answers differ, relative to the largest value and, for gradients, in the L2 norm too."""
    norms = [np.linalg.norm(each) for each in (found.gradients - expected.gradients, expected.gradients)]
    return {
        "logits": measure_distance(found.logits, expected.logits),
        "gradients": measure_distance(found.gradients, expected.gradients),
        "gradients_l2": float(norms[0] / norms[1]),
        "top1_equal": int((found.logits.argmax(1) == expected.logits.argmax(1)).sum()),
        "stages": {name: measure_distance(found.stages[name], each) for name, each in expected.stages.items()},
    }


def measure_distance(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest difference of two arrays over the largest absolute value of the second."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def join_answers(parts: Sequence[Answers]) -> Answers:
    """Join the answers for several batches."""

    def join(arrays: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate(arrays)

    names: Mapping[str, Any] = parts[0].stages
    return Answers(
        join([part.logits for part in parts]),
        join([part.gradients for part in parts]),
        {name: join([part.stages[name] for part in parts]) for name in names},
    )
