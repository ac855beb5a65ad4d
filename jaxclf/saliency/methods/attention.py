"""The attention weights of a traced model, and the logits as a function of changes of these."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Float, PyTree

from jaxclf.errors import UserError, require
from jaxclf.saliency.methods.softmax import Classified, SoftmaxReplacer
from jaxclf.saliency.tokens import find_grid
from jaxclf.types import Array
from jaxclf.xla.interpreter import get_array, is_traced

Weights = Float[Array, "b heads n n"]
"""What each token of an image takes from each token; rows sum to 1."""
Pool = Literal["class_token", "mean"]


class AttentionReplacer(SoftmaxReplacer):
    """Replaces attention weights in the program itself, so that they can be taken out of loops and checkpoints."""

    inlines = True


Function = Callable[[PyTree], Any]
"""A function of a tree of arrays [b, ...], such as images."""


def tap_attention(function: Function) -> Callable[[PyTree, Sequence[Array]], tuple[Any, list[Weights]]]:
    """Return a function as one of its argument and perturbations of its attention weights.

    Attention weights are the outputs of softmaxes along the last axis that are [b, heads, n, n], [b, n, n] with one
    head, or [groups, b, heads, n, n] as in `jax.nn.dot_product_attention`. Perturbations are added to them, one for
    each in the order of the program; without any, nothing is added. The results are those of the function, and the
    attention weights.

    Raises:
        UserError: If there are none, or if some are between other tokens than others.
    """

    def run(point: PyTree, perturbations: Sequence[Array]) -> tuple[Any, list[Weights]]:
        weights: list[Weights] = []
        shapes: list[tuple[int, ...]] = []
        b = jax.tree.leaves(point)[0].shape[0]

        def replace(_: Array, outputs: Array, axes: tuple[int, ...]) -> Array:
            shapes.append(outputs.shape)
            place = {3: 0, 4: 0, 5: 1}.get(outputs.ndim)  # of the batch axis
            if place is None or axes != (outputs.ndim - 1,) or outputs.shape[place] != b:
                return outputs
            moved = jnp.moveaxis(outputs, place, 0)
            weights.append(moved.reshape(b, -1, *outputs.shape[-2:]))
            if not perturbations:
                return outputs
            return outputs + jnp.moveaxis(perturbations[len(weights) - 1].reshape(moved.shape), 0, place)

        outputs = AttentionReplacer(replace).run(function, jax.tree.map(Classified, point))
        _check_weights(weights, shapes)
        return jax.tree.map(get_array, outputs, is_leaf=is_traced), weights

    return run


def make_zeros(function: Function, point: PyTree) -> list[Weights]:
    """Return perturbations by zeros for the attention weights of a function, which is traced but not computed."""
    _, weights = jax.eval_shape(lambda point: tap_attention(function)(point, ()), point)
    return [jnp.zeros(x.shape, x.dtype) for x in weights]


def _check_weights(weights: list[Weights], shapes: list[tuple[int, ...]]) -> None:
    known = ", ".join(str(list(shape)) for shape in shapes) or "none"
    if not weights:
        raise UserError(
            "this model has no attention, no softmax over the last axis of scores [b, heads, n, n]; the shapes of its "
            f"softmaxes are {known}; use a method for all models, such as GradCam or IntegratedGradients"
        )
    pairs = {x.shape[-2:] for x in weights}
    require(
        len(pairs) == 1 and len(set(pairs.pop())) == 1,
        f"attention weights of shapes {known}: expected [b, heads, n, n] with the same n everywhere; attention in "
        "windows, to other tokens or with fewer tokens in later layers is not supported",
    )


def make_token_map(
    layers: Sequence[Float[Array, "b n n"]], images: Float[Array, "b ..."], pool: Pool | None
) -> Float[Array, "b h w 1"]:
    """Return the relevance of the patches for what the logits are computed from.

    Args:
        layers: For each layer, the relevance of its input tokens (columns) for each of its output tokens (rows).
        images: Images [b, h, w, c], whose aspect the grid of patches has.
        pool: "class_token": for the first token; "mean": the mean over tokens; None: for the first token if there are
            tokens before those of the grid, otherwise the mean.
    """
    choices = (None, *get_args(Pool))
    require(pool in choices, f"pool={pool!r}: expected one of {', '.join(map(str, choices))}")
    grid = find_grid(layers[-1].shape[-1], images.shape)
    first = pool == "class_token" or (pool is None and grid.others > 0)
    relevance = layers[-1][:, 0] if first else layers[-1].mean(axis=1)
    for matrix in layers[-2::-1]:
        relevance = jnp.einsum("bi,bij->bj", relevance, matrix)
    return grid.to_map(relevance[..., None])
