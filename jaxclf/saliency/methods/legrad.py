"""LeGrad: the sensitivity of each layer's own score to its attention weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxclf.errors import UserError, require
from jaxclf.models.taps import apply_with_taps
from jaxclf.saliency.base import BaseMethod
from jaxclf.saliency.calls import Call, trace_calls
from jaxclf.saliency.methods.attention import Weights, make_zeros, tap_attention
from jaxclf.saliency.query import Attribution, Query, bind_variables, check_logits, make_attribution
from jaxclf.saliency.taps import require_module
from jaxclf.saliency.tokens import find_grid
from jaxclf.types import Array, Logits, promote_float

Tokens = Float[Array, "b n c"]


@dataclass(frozen=True)
class LeGrad(BaseMethod):
    """LeGrad: how a score of each layer depends on what its tokens take from each patch.

    The score of a layer is what the rest of the model without further blocks, such as layer normalization and linear
    layer, gives for the mean of the layer's tokens. The positive gradients of this score with respect to the attention
    weights of the layer are averaged over heads and over the tokens that attend, and summed over layers. Values are
    [b, h, w, 1], of the size of the grid of patches, and not negative.

    The blocks must be known, so this method needs a Linen model with one module per block, one after the other, that
    maps tokens [b, n, c] to tokens. Raises UserError for other models, and like AttentionRollout.
    W. Bousselham et al., "LeGrad: an explainability method for vision transformers via feature formation sensitivity"
    (2024), arXiv:2404.03214, without the normalization of the result to [0, 1].
    """

    gradient_based = False  # those of attention weights, which balanced gradients take for constants

    def explain(self, query: Query) -> Attribution:
        """Explain a query with one forward pass, and one forward and one backward pass through each block by itself."""
        blocks = find_blocks(query)
        logits, tokens = _apply_blocks(query, blocks)
        query, score = query.resolve_targets(logits)
        layers = []
        for number, inputs in enumerate([tokens[0], *tokens[:-1]]):  # the first block has no other one before it
            apply, point = query.rewrite(partial(_apply_block, query, blocks, number)), (query.images, inputs)
            run = partial(tap_attention(apply), point)
            layers += query.differentiate(run, make_zeros(apply, point), _average_positive)[2]
        total = jnp.stack(layers).sum(axis=0)
        grid = find_grid(total.shape[-1], query.images.shape)
        return make_attribution(query, grid.to_map(total[..., None]), score, evaluations=2)


def _average_positive(gradients: list[Weights], _: Any) -> list[Float[Array, "b n"]]:
    """Return the mean over heads and attending tokens of the positive gradients of attention weights."""
    return [jax.nn.relu(promote_float(x)).mean(axis=(1, 2)) for x in gradients]


def find_blocks(query: Query) -> list[str]:
    """Return the paths of the blocks of a transformer: the largest modules with a single attention each.

    Raises UserError if they do not map tokens to tokens one after the other.
    """
    calls, total = trace_calls(require_module(query.model), query.variables, query.images)
    require(total > 0, "this model has no attention; use a method for all models, such as GradCam")
    blocks: list[Call] = []
    for number in range(total):
        inside = [call for call in calls if call.start == number == call.stop - 1 and call.inputs == call.outputs]
        if not inside:
            raise UserError(f"LeGrad: attention {number + 1} of {total} is in no module that maps tokens to tokens")
        blocks.append(inside[-1])  # calls are in the order in which they end
    for first, second in pairwise(blocks):
        if first.end != second.begin or first.path == second.path:
            raise UserError(
                f"LeGrad needs one module per block, called one after the other: {first.path!r} and {second.path!r} "
                "have operations between them; use GenericAttention instead"
            )
    return [block.path for block in blocks]


def _apply_blocks(query: Query, blocks: list[str]) -> tuple[Logits, list[Tokens]]:
    """Return the logits, and the tokens after each block."""

    def run(images: Array) -> tuple[Logits, list[Tokens]]:
        logits, outputs = apply_with_taps(
            require_module(query.model), query.variables, images, lambda module: "/".join(module.path) in blocks
        )
        return check_logits(logits, images), [outputs[path][0] for path in blocks]

    return query.rewrite(run)(query.images)


def _apply_block(query: Query, blocks: list[str], number: int, point: tuple[Array, Tokens]) -> Logits:
    """Return the logits of the model where the blocks before a block put out given tokens, and there are none after it.

    The end of the model gets the mean of the tokens of the block, at the place of each.
    """
    images, tokens = point

    def intercept(call: Callable, arguments: tuple, options: dict[str, Any], context: Any) -> Any:
        path = "/".join(context.module.path) if context.method_name == "__call__" else ""
        if path not in blocks:
            return call(*arguments, **options)
        if path != blocks[number]:
            return tokens if blocks.index(path) < number else arguments[0]
        outputs = call(*arguments, **options)
        return jnp.broadcast_to(outputs.mean(axis=1, keepdims=True), outputs.shape)

    with nn.intercept_methods(intercept):
        return bind_variables(query.model, query.variables)(images)
