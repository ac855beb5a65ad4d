"""Tests with random parameters or a random class that give one number per image: the map must change.

`targets`, `key` and `baseline` are as in `Method.__call__`. The smooth parameter randomization test is
`parameter_randomization` of `SmoothGrad(method)`.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import entr
from jaxtyping import Float, PyTree

from jaxclf.errors import require
from jaxclf.saliency.base import Keys, Method, map_over_batch
from jaxclf.saliency.compiler import compile_with_static
from jaxclf.saliency.metrics.faithfulness import Baseline, Images, Targets
from jaxclf.saliency.metrics.sanity import compute_similarities, initialize_parameters
from jaxclf.saliency.query import Model
from jaxclf.saliency.sampling import make_metric_keys
from jaxclf.saliency.taps import require_module
from jaxclf.types import Array, Variables


@compile_with_static("method", "model", "bins")
def efficient_randomization(
    method: Method,
    model: Model,
    variables: Variables,
    images: Images,
    *,
    key: Keys,
    bins: int = 100,
    targets: Targets = None,
    baseline: Baseline = None,
) -> Float[Array, "b ..."]:
    """Compute the efficient parameter randomization test: the relative rise of the complexity of the map.

    All parameters are initialized again. The complexity is the entropy of the histogram of the values; maps of a random
    model should be more complex than those of the trained one.

    A. Hedström et al., "Sanity checks revisited: an exploration to repair the model parameter randomisation test"
    (2023), arXiv:2401.06465.

    Args:
        method: The saliency method.
        model: A Linen module.
        variables: The variables of the model.
        images: Images [b, ...].
        key: One random key, since all examples share the random parameters.
        bins: Number of bins of the histogram, from the smallest to the largest value of a map.
        targets: The explained classes, for None those that the trained model predicts.
        baseline: The baseline of the method.

    Returns:
        [b] (random - trained) / trained, or the rise itself for a constant map of the trained model; large is good.

    Raises:
        UserError: If the model is not a Linen module, or shapes do not fit.
    """
    require(bins >= 2, f"bins={bins}: expected at least 2")
    random = initialize_parameters(require_module(model), images, key)

    def measure(query, _):
        query, _ = query.resolve_targets()
        trained = _compute_complexity(method.explain(query).values, bins)
        changed = query.replace(variables={**variables, "params": random})
        rise = _compute_complexity(method.explain(changed).values, bins) - trained
        return rise / jnp.where(trained == 0, 1, trained)

    return map_over_batch(measure, method, model, variables, images, targets, key, baseline)


def _compute_complexity(values: Float[Array, "b targets ..."], bins: int) -> Float[Array, "b targets"]:
    """Compute the entropy of the histogram of each map in nats; 0 for a constant map."""
    flat = values.reshape(*values.shape[:2], -1)
    low, high = flat.min(axis=-1, keepdims=True), flat.max(axis=-1, keepdims=True)
    width = jnp.where(high > low, high - low, 1)
    places = jnp.minimum((flat - low) / width * bins, bins - 1).astype(jnp.int32)
    counts = jax.vmap(jax.vmap(lambda places: jnp.zeros(bins).at[places].add(1)))(places)
    return entr(counts / flat.shape[-1]).sum(axis=-1)


class ClassSimilarity(NamedTuple):
    """Similarity of the maps of two classes."""

    rank_correlation: Float[Array, " b"]
    """Spearman's correlation of all values; 0 where a map is constant."""
    ssim: Float[Array, " b"]
    """Structural similarity of the sums over channels, each map divided by its largest absolute value."""


@compile_with_static("method", "model")
def random_logit(
    method: Method,
    model: Model,
    variables: PyTree,
    images: Images,
    *,
    key: Keys,
    targets: Targets = None,
    baseline: Baseline = None,
) -> ClassSimilarity:
    """Compute the random logit test: the similarity of the map to that of a random other class.

    L. Sixt, M. Granz, T. Landgraf, "When explanations lie: why many modified BP attributions fail" (2020),
    arXiv:1912.09818.

    Args:
        method: A saliency method that explains one class.
        model: As in `Method.__call__`.
        variables: The variables of the model.
        images: Images [b, ...].
        key: One random key or [b].
        targets: The explained classes.
        baseline: The baseline of the method.

    Returns:
        The similarities [b]; small ones are good.

    Raises:
        UserError: If the method explains all classes, the model has one class, or shapes do not fit.
    """
    require(not method.every_class, f"{method}: the test is for one class; pass the method without all_classes")

    def measure(query, _):
        logits = query.compute_logits(query.images)
        query, _ = query.resolve_targets(logits)
        classes = logits.shape[1]
        require(classes >= 2, "the model has one class: expected at least 2")
        draw = jax.vmap(lambda key: jax.random.randint(key, (), 1, classes))
        others = (query.targets + draw(make_metric_keys(query.keys))) % classes
        values = method.explain(query.replace(targets=others)).values
        return compute_similarities(values, method.explain(query).values)

    return ClassSimilarity(*map_over_batch(measure, method, model, variables, images, targets, key, baseline))
