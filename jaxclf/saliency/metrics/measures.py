"""Metrics of an attribution alone: completeness, sparseness and complexity."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax.scipy.special import entr
from jaxtyping import Float

from jaxclf.errors import UserError
from jaxclf.saliency.query import Attribution
from jaxclf.types import Array


@partial(jax.jit, static_argnames="relative")
def completeness(a: Attribution, *, relative: bool = False) -> Float[Array, " b"]:
    """Compute the completeness gap |sum(values) - (score - score at the baseline)|.

    M. Sundararajan, A. Taly, Q. Yan, "Axiomatic attribution for deep networks" (2017), arXiv:1703.01365.

    Args:
        a: The attribution.
        relative: Divide the gap by |score - score at the baseline|. A gap over 0 is infinite, no gap is 0.

    Returns:
        [b] in units of the score, or relative; 0 is best.

    Raises:
        UserError: If the method has no completeness property.
    """
    if a.delta is None:
        raise UserError("the attribution has no delta: its method does not have the completeness property")
    gap = jnp.abs(a.delta)
    if not relative:
        return gap
    change = jnp.abs(a.values.reshape(*gap.shape, -1).sum(axis=-1) - a.delta)
    return jnp.where(gap == 0, 0, gap / jnp.where(gap == 0, 1, change))


@jax.jit
def gini(a: Attribution) -> Float[Array, " b"]:
    """Compute the Gini index of the absolute values, a measure of sparseness.

    N. Hurley, S. Rickard, "Comparing measures of sparsity" (2008), arXiv:0811.4706; for attributions:
    P. Chalasani et al. (2018), arXiv:1810.06583.

    Args:
        a: The attribution.

    Returns:
        [b] from 0 for n equal values, or an attribution of zeros, to (n - 1)/n for a single nonzero value.
    """
    shares = jnp.sort(_normalize(a), axis=1)
    n = shares.shape[1]
    weights = (2 * jnp.arange(1, n + 1) - n - 1) / n
    return jnp.sum(weights[None] * shares, axis=1)


@jax.jit
def entropy(a: Attribution) -> Float[Array, " b"]:
    """Compute the entropy of the normalized absolute values, a measure of complexity.

    U. Bhatt, A. Weller, J. M. F. Moura, "Evaluating and aggregating feature-based model explanations" (2020),
    arXiv:2005.00631.

    Args:
        a: The attribution.

    Returns:
        [b] in nats, from 0 for a single nonzero value to log n for n equal values or an attribution of zeros.
    """
    return entr(_normalize(a)).sum(axis=1)


def _normalize(a: Attribution) -> Float[Array, "b n"]:
    """Divide the absolute values by their sum; zeros become equal values."""
    # Divided by the largest first: the sum of small values would underflow.
    sizes = jnp.abs(a.values.reshape(a.values.shape[0], -1))
    largest = sizes.max(axis=1, keepdims=True)
    sizes = jnp.where(largest == 0, 1, sizes / jnp.where(largest == 0, 1, largest))
    return sizes / sizes.sum(axis=1, keepdims=True)
