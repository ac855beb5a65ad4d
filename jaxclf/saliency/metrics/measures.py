"""Measures of an attribution by itself: how complete, how sparse, how spread, and whether it points at the object."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax.scipy.special import entr
from jaxtyping import Float, Shaped

from jaxclf.errors import UserError, require
from jaxclf.saliency.attribution import Attribution
from jaxclf.saliency.pixels import importance
from jaxclf.types import Array


@partial(jax.jit, static_argnames="relative")
def completeness(a: Attribution, *, relative: bool = False) -> Float[Array, " b"]:
    """|sum of the values - (score - score at the baseline)|, [b], in units of the score: 0 where all is accounted for.

    With `relative`, as a share of |score - score at the baseline|; where that is 0, a gap is infinite and none is 0.
    Raises UserError for methods whose values have no such sum.

    M. Sundararajan, A. Taly, Q. Yan, "Axiomatic attribution for deep networks" (2017), arXiv:1703.01365.
    """
    if a.delta is None:
        raise UserError("the attribution has no delta: its method is not meant to be complete")
    gap = jnp.abs(a.delta)
    if not relative:
        return gap
    change = jnp.abs(a.values.reshape(*gap.shape, -1).sum(axis=-1) - a.delta)
    return jnp.where(gap == 0, 0, gap / jnp.where(gap == 0, 1, change))


@jax.jit
def gini(a: Attribution) -> Float[Array, " b"]:
    """How unequal the absolute values are, [b]: 0 for all the same, (n - 1)/n for only one of n. A map of zeros has 0.

    N. Hurley, S. Rickard, "Comparing measures of sparsity" (2008), arXiv:0811.4706; of attributions:
    P. Chalasani et al. (2018), arXiv:1810.06583.
    """
    shares = jnp.sort(_shares(a), axis=1)
    n = shares.shape[1]
    weights = (2 * jnp.arange(1, n + 1) - n - 1) / n
    return jnp.sum(weights[None] * shares, axis=1)


@jax.jit
def entropy(a: Attribution) -> Float[Array, " b"]:
    """How many values share in it: the entropy of the shares in the sum of absolute values, [b], in nats.

    0 for only one value, log n for n equal ones. A map of zeros has log n.

    U. Bhatt, A. Weller, J. M. F. Moura, "Evaluating and aggregating feature-based model explanations" (2020),
    arXiv:2005.00631.
    """
    return entr(_shares(a)).sum(axis=1)


@jax.jit
def pointing_game(a: Attribution, mask: Shaped[Array, "b ..."]) -> Float[Array, " b"]:
    """1 where the most important pixel lies in the mask and 0 where it does not, [b].

    The mask is true where the object is, a number a pixel: [b, h, w], or [b, n] of flat images. Where several pixels
    are the most important, it is the share of them that lie in the mask: a constant map does as well as chance.

    J. Zhang et al., "Top-down neural attention by excitation backprop" (2016), arXiv:1608.00507; without its
    margin around the object: enlarge the mask.
    """
    pixels = importance(a.values)
    inside = mask.reshape(mask.shape[0], -1) != 0
    require(
        inside.shape == pixels.shape,
        f"a mask of shape {list(mask.shape)} for values of shape {list(a.values.shape)}: expected one number a pixel",
    )
    largest = pixels == pixels.max(axis=1, keepdims=True)
    return jnp.sum(largest & inside, axis=1) / jnp.sum(largest, axis=1)


def _shares(a: Attribution) -> Float[Array, "b n"]:
    """The share of each value in the sum of the absolute values; of zeros all are the same."""
    sizes = jnp.abs(a.values.reshape(a.values.shape[0], -1))
    largest = sizes.max(axis=1, keepdims=True)
    sizes = jnp.where(largest == 0, 1, sizes / jnp.where(largest == 0, 1, largest))
    return sizes / sizes.sum(axis=1, keepdims=True)
