"""Relative stability: the relative change of a map, divided by the change of the input, the logits or a layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Float, PyTree

from jaxclf.errors import require
from jaxclf.models.taps import apply_with_taps, trace_outputs
from jaxclf.saliency.base import Keys, Method, map_over_batch
from jaxclf.saliency.compiler import compile_with_static
from jaxclf.saliency.metrics.faithfulness import Baseline, Images, Targets
from jaxclf.saliency.metrics.robustness import check_samples, find_largest
from jaxclf.saliency.metrics.similarity import compute_norm
from jaxclf.saliency.query import Model, Query
from jaxclf.saliency.taps import get_only_output, require_module
from jaxclf.types import Array

FLOOR = 0.01
"""Numbers below this share of the largest one of their array are raised to it before a change is divided by them."""
SMALLEST_CHANGE = 1e-6
"""The smallest denominator."""


@compile_with_static("method", "model", "relative_to", "layer", "radius", "samples")
def relative_stability(
    method: Method,
    model: Model,
    variables: PyTree,
    images: Images,
    *,
    key: Keys,
    relative_to: Literal["input", "output", "representation"] = "input",
    layer: str | None = None,
    radius: float = 0.02,
    samples: int = 10,
    targets: Targets = None,
    baseline: Baseline = None,
) -> Float[Array, "b ..."]:
    """Compute the relative input, output or representation stability (RIS, ROS, RRS).

    It is the largest ratio |(e - e') / e| / |(x - x') / x| over random images x' nearby that have the same predicted
    class, where e and e' are the maps, and the divisions inside the norms are number by number. For the output the
    denominator is |h(x) - h(x')| with the logits h; for a representation it is |(l(x) - l(x')) / l(x)| with the output
    l of a layer.

    The paper's ratio is not defined where a map or an image is 0: here a number is divided by no less than 0.01 of the
    largest number of its map, image or layer.

    C. Agarwal et al., "Rethinking stability for attribution-based explanations" (2022), arXiv:2203.06877.

    Args:
        method: The saliency method.
        model: As in `Method.__call__`; a Linen module for a representation.
        variables: The variables of the model.
        images: Images [b, ...].
        key: One random key or [b].
        relative_to: The denominator: the change of the image, of the logits, or of the output of a layer.
        layer: The path of that layer, such as "conv1".
        radius: The largest change of each number of an image, in [0, 1] units.
        samples: Number of random images. The result is a lower bound.
        targets: The explained classes.
        baseline: The baseline of the method.

    Returns:
        [b]; small is good. NaN if the predicted class differs for all random images.

    Raises:
        UserError: If a number is out of range, shapes do not fit, or there is no such layer.
    """
    check_samples(radius, samples)
    require(
        (layer is not None) == (relative_to == "representation"),
        f"layer={layer!r}, relative_to={relative_to!r}: a layer and 'representation' need each other",
    )

    def measure(query, _):
        describe = _select_description(query, relative_to, layer)
        logits, reference = query.compute_logits(query.images), describe(query.images)

        def compute_ratio(values, clean, step):
            moved = query.images + step[:, 0]
            kept = query.compute_logits(moved).argmax(axis=1) == logits.argmax(axis=1)
            changed, start = describe(moved)[:, None], reference[:, None]
            change = compute_norm(changed - start) if relative_to == "output" else _compute_change(changed, start)
            ratio = _compute_change(values, clean) / jnp.maximum(change, SMALLEST_CHANGE)
            kept = jnp.broadcast_to(kept[:, None], ratio.shape)
            return jnp.where(kept, ratio, 0), kept

        largest, found = find_largest(method, query, radius, samples, compute_ratio)
        return jnp.where(found, largest, jnp.nan)

    return map_over_batch(measure, method, model, variables, images, targets, key, baseline)


def _select_description(
    query: Query, relative_to: str, layer: str | None
) -> Callable[[Float[Array, "b ..."]], Float[Array, "b ..."]]:
    """Return the function of images whose change is the denominator."""
    if relative_to == "input":
        return lambda images: images
    if relative_to == "output":
        return query.compute_logits
    model, path = require_module(query.model), str(layer)
    layers = trace_outputs(model, query.variables, query.images)
    get_only_output(path, layers, f"choose one of {', '.join(layers)}")

    def compute_output(images: Float[Array, "b ..."]) -> Float[Array, "b ..."]:
        _, outputs = apply_with_taps(model, query.variables, images, lambda module: "/".join(module.path) == path)
        return outputs[path][0]

    return compute_output


def _compute_change(
    x: Float[Array, "b targets ..."], reference: Float[Array, "b targets ..."]
) -> Float[Array, "b targets"]:
    """Compute the norm of the change of each map, each number divided by that of the reference."""
    size = jnp.abs(reference)
    size = jnp.maximum(size, FLOOR * size.max(axis=tuple(range(2, size.ndim)), keepdims=True))
    return compute_norm((x - reference) / jnp.where(size == 0, 1, size))
