"""Robustness metrics: changes of the map under small changes of the image.

`targets`, `key` and `baseline` are as in `Method.__call__`; the explained class is that of the unperturbed image. A
method that samples uses the same random numbers for each image. With `all_classes`, [b] becomes [b, classes].
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Float, PyTree, Shaped

from jaxclf.errors import require
from jaxclf.saliency.base import Keys, Method, map_over_batch
from jaxclf.saliency.batching import fold
from jaxclf.saliency.compiler import compile_with_static
from jaxclf.saliency.metrics.faithfulness import Baseline, Images, Targets
from jaxclf.saliency.metrics.similarity import compute_norm, compute_relative_distance
from jaxclf.saliency.query import Model, Query
from jaxclf.saliency.sampling import fold_sample_keys, make_metric_keys
from jaxclf.types import Array
from jaxclf.xla.convolutions import rewrite_convolutions


@compile_with_static("method", "model", "radius", "samples")
def sensitivity_max(
    method: Method,
    model: Model,
    variables: PyTree,
    images: Images,
    *,
    key: Keys,
    radius: float = 0.02,
    samples: int = 10,
    targets: Targets = None,
    baseline: Baseline = None,
) -> Float[Array, "b ..."]:
    """Compute the largest relative change of the map over random images nearby.

    C.-K. Yeh et al., "On the (in)fidelity and sensitivity of explanations" (2019), arXiv:1901.09392.

    Args:
        method: The saliency method.
        model: As in `Method.__call__`.
        variables: The variables of the model.
        images: Images [b, ...].
        key: One random key or [b].
        radius: The largest change of each number of an image, in [0, 1] units.
        samples: Number of random images.
        targets: The explained classes.
        baseline: The baseline of the method.

    Returns:
        [b] changes divided by the norm of the map, or the changes themselves for a map of zeros; 0 is best.

    Raises:
        UserError: If a number is out of range or shapes do not fit.
    """
    check_samples(radius, samples)

    def measure(query, _):
        return find_largest(
            method, query, radius, samples, lambda values, clean, step: compute_relative_distance(values, clean)
        )

    return map_over_batch(measure, method, model, variables, images, targets, key, baseline)


@compile_with_static("method", "model", "radius", "samples", "exact", "iterations")
def local_lipschitz(
    method: Method,
    model: Model,
    variables: PyTree,
    images: Images,
    *,
    key: Keys,
    radius: float = 0.02,
    samples: int = 10,
    exact: bool = False,
    iterations: int = 50,
    targets: Targets = None,
    baseline: Baseline = None,
) -> Float[Array, "b ..."]:
    """Compute a local Lipschitz constant of the map, the largest change of the map divided by that of the image.

    D. Alvarez-Melis, T. Jaakkola, "On the robustness of interpretability methods" (2018), arXiv:1806.08049.

    Args:
        method: The saliency method.
        model: As in `Method.__call__`.
        variables: The variables of the model.
        images: Images [b, ...].
        key: One random key or [b].
        radius: The largest change of each number of an image, in [0, 1] units.
        samples: Number of random images. The result is a lower bound.
        exact: Compute the spectral norm of the derivative of the map at the image instead, for `Gradient` that of the
            Hessian of the score. Requires a method that explains one class.
        iterations: Number of power iterations of `exact`.
        targets: The explained classes.
        baseline: The baseline of the method.

    Returns:
        [b]; small is good.

    Raises:
        UserError: If a number is out of range, or `exact` is used with `all_classes`.
    """
    check_samples(radius, samples)
    require(iterations >= 1, f"iterations={iterations}: expected at least 1")
    require(not (exact and method.every_class), f"{method}: the exact constant is for one class; pass a target")

    def compute_ratio(values, clean, step):
        return compute_norm(values - clean) / compute_norm(step)

    def measure(query, _):
        if exact:
            return _compute_spectral_norm(method, query, iterations)
        return find_largest(method, query, radius, samples, compute_ratio)

    return map_over_batch(measure, method, model, variables, images, targets, key, baseline)


def check_samples(radius: float, samples: int) -> None:
    """Raise UserError if there are no samples, or if they would be the image itself."""
    require(radius > 0, f"radius={radius}: expected more than 0")
    require(samples >= 1, f"samples={samples}: expected at least 1")


def find_largest(
    method: Method,
    query: Query,
    radius: float,
    samples: int,
    measure: Callable[..., PyTree[Shaped[Array, "b targets"]]],
) -> PyTree[Shaped[Array, "b targets"]]:
    """Return the largest measures of the values nearby, those at the images, and the step [b, 1, ...] between them."""
    query, _ = query.resolve_targets()
    clean = method.explain(query).values
    group_size = query.points_per_call
    # The samples of a group share the rows of a model call.
    reduced = query.replace(max_rows=max(query.max_rows // group_size, query.images.shape[0]))
    keys = make_metric_keys(query.keys)

    def sample(j):
        draw = partial(jax.random.uniform, shape=query.images.shape[1:], minval=-radius, maxval=radius)
        step = jax.vmap(draw)(fold_sample_keys(keys, j))
        values = method.explain(reduced.replace(images=query.images + step)).values
        return measure(values, clean, step[:, None])

    def find_in_group(js):
        return jax.tree.map(lambda x: x.max(axis=0), jax.vmap(sample)(js))

    return fold(find_in_group, partial(jax.tree.map, jnp.maximum), jnp.arange(samples), group_size)


def _compute_spectral_norm(method: Method, query: Query, iterations: int) -> Float[Array, "b 1"]:
    """Compute the largest singular value of the derivative of the values by power iteration from random directions."""
    query, _ = query.resolve_targets()
    draw = partial(jax.random.normal, shape=query.images.shape[1:], dtype=query.images.dtype)
    start = jax.vmap(draw)(make_metric_keys(query.keys))

    def iterate(images, direction):
        clean, pull = jax.vjp(lambda images: method.explain(query.replace(images=images)).values, images)
        # Not jvp: methods with a custom backward pass do not have it.
        push = jax.linear_transpose(lambda values: pull(values)[0], clean)

        def step(direction, _):
            (direction,) = pull(push(_scale_to_unit(direction))[0])
            return direction, None

        direction, _ = jax.lax.scan(step, direction, length=iterations)
        return compute_norm(push(_scale_to_unit(direction))[0])

    return rewrite_convolutions(iterate)(query.images, start)


def _scale_to_unit(x: Float[Array, "b ..."]) -> Float[Array, "b ..."]:
    """Scale each example to a norm of 1; zeros stay zeros."""
    norm = compute_norm(x[:, None]).reshape(-1, *[1] * (x.ndim - 1))
    return x / jnp.where(norm == 0, 1, norm)
