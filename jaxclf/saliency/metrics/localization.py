"""Localization metrics: the agreement of an attribution with a mask of the object.

A mask is true or nonzero where the object is, one number per pixel: [b, h, w], or [b, n] for flat images. A pixel has
the sum of its values over channels. Maps without information and empty masks score like chance.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax.scipy.stats import rankdata
from jaxtyping import Bool, Float, Int, Shaped

from jaxclf.errors import require
from jaxclf.saliency.pixels import sum_channels
from jaxclf.saliency.query import Attribution
from jaxclf.types import Array

Mask = Shaped[Array, "b ..."]


@jax.jit
def pointing_game(a: Attribution, mask: Mask) -> Float[Array, " b"]:
    """Test if the most important pixel is on the object.

    J. Zhang et al., "Top-down neural attention by excitation backprop" (2016), arXiv:1608.00507; without its
    margin around the object: enlarge the mask.

    Args:
        a: The attribution.
        mask: True or nonzero where the object is, one number per pixel: [b, h, w], or [b, n] for flat images.

    Returns:
        [b] 1 if the most important pixel is under the mask, else 0. If several pixels are tied, the fraction of them
        under the mask, so a constant map scores like chance.

    Raises:
        UserError: If the mask does not have the shape of the pixels.
    """
    pixels, inside = _compare_shapes(a, mask)
    largest = pixels == pixels.max(axis=1, keepdims=True)
    return jnp.sum(largest & inside, axis=1) / jnp.sum(largest, axis=1)


@jax.jit
def relevance_mass_accuracy(a: Attribution, mask: Mask) -> Float[Array, " b"]:
    """Compute the share of the positive values that is on the object: sum over the mask / sum over the image.

    L. Arras, A. Osman, W. Samek, "CLEVR-XAI" (2020), arXiv:2003.07258, with the positive part of the sum over
    channels, one of its poolings. With signed values the share would have no bounds.

    Args:
        a: The attribution.
        mask: The object, one number per pixel.

    Returns:
        [b] in [0, 1]; 1 is best. Without positive values the share of the mask in the image.

    Raises:
        UserError: If the mask does not have the shape of the pixels.
    """
    pixels, inside = _compare_shapes(a, mask)
    # Divided by the largest first: the sum of small values would underflow.
    largest = pixels.max(axis=1, keepdims=True)
    positive = jnp.where(largest > 0, jnp.maximum(pixels, 0) / jnp.where(largest > 0, largest, 1), 1)
    return jnp.sum(positive * inside, axis=1) / positive.sum(axis=1)


@jax.jit
def relevance_rank_accuracy(a: Attribution, mask: Mask) -> Float[Array, " b"]:
    """Compute the share of the K most important pixels that is on the object, for an object of K pixels.

    L. Arras, A. Osman, W. Samek, "CLEVR-XAI" (2020), arXiv:2003.07258.

    Args:
        a: The attribution.
        mask: The object, one number per pixel.

    Returns:
        [b] in [0, 1]; 1 is best. If pixels are tied, the mean over their orders, so a constant map has the share of the
        mask in the image. 0 for an empty mask.

    Raises:
        UserError: If the mask does not have the shape of the pixels.
    """
    pixels, inside = _compare_shapes(a, mask)
    return _find_share(pixels, inside, inside.sum(axis=1))


@partial(jax.jit, static_argnames="k")
def top_k_intersection(a: Attribution, mask: Mask, *, k: int) -> Float[Array, " b"]:
    """Compute the share of the `k` most important pixels that is on the object.

    J. Theiner, E. Müller-Budack, R. Ewerth, "Interpretable semantic photo geolocation" (2021), arXiv:2104.14995.

    Args:
        a: The attribution.
        mask: The object, one number per pixel.
        k: Number of pixels.

    Returns:
        [b] in [0, 1]; 1 is best, which needs an object of at least `k` pixels. If pixels are tied, the mean over their
        orders.

    Raises:
        UserError: If the mask does not have the shape of the pixels, or `k` is out of range.
    """
    pixels, inside = _compare_shapes(a, mask)
    require(1 <= k <= pixels.shape[1], f"k={k}: expected 1 to {pixels.shape[1]}, the number of pixels")
    return _find_share(pixels, inside, jnp.full(len(pixels), k))


@jax.jit
def localization_auc(a: Attribution, mask: Mask) -> Float[Array, " b"]:
    """Compute the area under the ROC curve of the values as a classifier of the pixels of the object.

    T. Fawcett, "An introduction to ROC analysis" (2006), algorithm 1; here by the ranks of the pixels.

    Args:
        a: The attribution.
        mask: The object, one number per pixel.

    Returns:
        [b] in [0, 1], the probability that a pixel of the object has a larger value than one outside; 1 is best. 0.5
        for a constant map, and if the mask is empty or covers the image.

    Raises:
        UserError: If the mask does not have the shape of the pixels.
    """
    pixels, inside = _compare_shapes(a, mask)
    # Ranks around 0: the sum of large numbers would lose digits.
    ranks = rankdata(pixels, axis=1) - (pixels.shape[1] + 1) / 2
    count = inside.sum(axis=1).astype(pixels.dtype)  # the product of integers would overflow
    pairs = count * (pixels.shape[1] - count)
    # U / pairs - 1/2, where U counts the ordered pairs of a pixel inside and one outside.
    excess = jnp.sum(ranks * inside, axis=1) / jnp.where(pairs == 0, 1, pairs)
    return jnp.clip(0.5 + jnp.where(pairs == 0, 0, excess), 0, 1)


def _compare_shapes(a: Attribution, mask: Mask) -> tuple[Float[Array, "b pixels"], Bool[Array, "b pixels"]]:
    """Return the value of each pixel, and whether it is under the mask."""
    pixels = sum_channels(a.values)
    inside = mask.reshape(mask.shape[0], -1) != 0
    require(
        inside.shape == pixels.shape,
        f"a mask of shape {list(mask.shape)} for values of shape {list(a.values.shape)}: expected one number per pixel",
    )
    return pixels, inside


def _find_share(
    pixels: Float[Array, "b pixels"], inside: Bool[Array, "b pixels"], count: Int[Array, " b"]
) -> Float[Array, " b"]:
    """Return the share of the `count` largest pixels that is inside; tied pixels count with their mean."""
    descending = -jnp.sort(-pixels, axis=1)
    smallest = jnp.take_along_axis(descending, jnp.maximum(count - 1, 0)[:, None], axis=1)
    above, tied = pixels > smallest, pixels == smallest
    hits = jnp.sum(above & inside, axis=1)
    rest = (count - above.sum(axis=1)) * jnp.sum(tied & inside, axis=1) / tied.sum(axis=1)
    return jnp.where(count == 0, 0, (hits + rest) / jnp.maximum(count, 1))
