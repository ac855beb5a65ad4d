"""Faithfulness metrics: agreement of an attribution with changes of the score under perturbations.

They measure the explained class: `targets` as given to the method, None for the predicted class. `score` and `max_rows`
are as in the methods; `baseline` replaces the pixels that are removed. Pixels are ranked by the signed sum of their
values over channels; ties keep the order of the pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Key, Num, PyTree

from jaxclf.errors import require
from jaxclf.saliency.base import Keys, ScoreSpec, Targets, map_over_batch
from jaxclf.saliency.batching import map_over
from jaxclf.saliency.compiler import compile_with_static
from jaxclf.saliency.metrics.similarity import compute_correlation
from jaxclf.saliency.pixels import replace_pixels, split_pixels
from jaxclf.saliency.query import Attribution, Model, Query, Score
from jaxclf.saliency.sampling import fold_sample_keys
from jaxclf.types import Array

Images = Num[Array, "b ..."]
Baseline = Num[Array, "..."] | float | None
PixelValues = Float[Array, "b pixels channels"]
Perturb = Callable[[Query, Key[Array, " b"], PixelValues], tuple[Float[Array, " b"], Float[Array, "b ..."]]]
"""Returns the predicted loss of the score for a random perturbation, and the perturbed images."""


@compile_with_static("model", "samples", "normalize", "share", "noise", "score", "max_rows")
def infidelity(
    model: Model,
    variables: PyTree,
    images: Images,
    a: Attribution,
    *,
    key: Keys,
    samples: int,
    normalize: bool = False,
    share: float = 0.5,
    noise: float | None = None,
    targets: Targets = None,
    baseline: Baseline = None,
    score: Score = "logit",
    max_rows: int | None = None,
) -> Float[Array, " b"]:
    """Compute the infidelity: the mean squared error of the attribution as a prediction of score changes.

    By default random pixels are removed, and the sum of their values predicts the loss of the score. With `noise`,
    Gaussian noise is subtracted from the image, and its product with the values predicts the loss; that is the variant
    for gradients.

    C.-K. Yeh et al., "On the (in)fidelity and sensitivity of explanations" (2019), arXiv:1901.09392.

    Args:
        model: As in `Method.__call__`.
        variables: The variables of the model.
        images: Images [b, ...].
        a: Their attribution.
        key: One random key or [b].
        samples: Number of random perturbations per image.
        normalize: Scale the values of each example by the factor of the least error.
        share: The probability with which each pixel is removed.
        noise: Standard deviation of the noise in [0, 1] units; None: pixels are removed.
        targets: The explained classes.
        baseline: Replaces removed pixels.
        score: The explained score.
        max_rows: Largest number of images per model call.

    Returns:
        [b] in squared units of the score; 0 is best.

    Raises:
        UserError: If a number is out of range or shapes do not fit.
    """
    require(samples >= 1, f"samples={samples}: expected at least 1")
    require(0 < share <= 1, f"share={share}: expected more than 0, at most 1")

    def remove_random_pixels(query, keys, values):
        mask = jax.vmap(lambda key: jax.random.bernoulli(key, share, values.shape[1:2]))(keys)
        return _remove_pixels(query, values, mask)

    perturb = remove_random_pixels if noise is None else partial(_subtract_noise, noise=noise)

    def measure(query, values):
        predicted, actual = _sample_losses(query, values, samples, perturb)
        return jnp.mean(((_fit_scale(predicted, actual) if normalize else predicted) - actual) ** 2, axis=0)

    values, spec = split_pixels(a.values, images), ScoreSpec(score, max_rows)
    return map_over_batch(measure, spec, model, variables, images, targets, key, baseline, values)


@compile_with_static("model", "n", "samples", "score", "max_rows")
def sensitivity_n(
    model: Model,
    variables: PyTree,
    images: Images,
    a: Attribution,
    *,
    key: Keys,
    n: int | None = None,
    samples: int = 200,
    targets: Targets = None,
    baseline: Baseline = None,
    score: Score = "logit",
    max_rows: int | None = None,
) -> Float[Array, " b"]:
    """Compute the correlation of the values of `n` random pixels, summed, with the loss of the score without them.

    M. Ancona et al., "Towards better understanding of gradient-based attribution methods" (2017), arXiv:1711.06104.

    Args:
        model: As in `Method.__call__`.
        variables: The variables of the model.
        images: Images [b, ...].
        a: Their attribution.
        key: One random key or [b].
        n: Number of removed pixels; None: a fifth of all.
        samples: Number of random subsets per image.
        targets: The explained classes.
        baseline: Replaces removed pixels.
        score: The explained score.
        max_rows: Largest number of images per model call.

    Returns:
        [b] in [-1, 1]; 1 is best. 0 if the sum or the loss is constant, as for an attribution of zeros.

    Raises:
        UserError: If a number is out of range or shapes do not fit.
    """
    values, spec = split_pixels(a.values, images), ScoreSpec(score, max_rows)
    return _correlate_losses(values, n, samples, spec, model, variables, images, targets, key, baseline)


@compile_with_static("model", "n", "samples", "score", "max_rows")
def faithfulness_correlation(
    model: Model,
    variables: PyTree,
    images: Images,
    a: Attribution,
    *,
    key: Keys,
    n: int | None = None,
    samples: int = 100,
    targets: Targets = None,
    baseline: Baseline = None,
    score: Score = "logit",
    max_rows: int | None = None,
) -> Float[Array, " b"]:
    """Compute the correlation of the values of `n` random numbers of the image, summed, with the loss of the score.

    This is `sensitivity_n` with single numbers in place of pixels with all their channels; in gray images they are the
    same. The value of a pixel in a map with one channel counts for each of its numbers.

    U. Bhatt, A. Weller, J. M. F. Moura, "Evaluating and aggregating feature-based model explanations" (2020),
    arXiv:2005.00631, definition of faithfulness.

    Args:
        model: As in `sensitivity_n`, like the other arguments.
        variables: The variables of the model.
        images: Images [b, ...].
        a: Their attribution.
        key: One random key or [b].
        n: Number of removed numbers; None: a fifth of all.
        samples: Number of random subsets per image.
        targets: The explained classes.
        baseline: Replaces removed numbers.
        score: The explained score.
        max_rows: Largest number of images per model call.

    Returns:
        [b] in [-1, 1]; 1 is best. 0 if the sum or the loss is constant, as for an attribution of zeros.

    Raises:
        UserError: If a number is out of range or shapes do not fit.
    """
    values, spec = split_pixels(a.values, images), ScoreSpec(score, max_rows)
    b, pixels, _ = values.shape
    # The correlation does not depend on the scale, so each number may have the value of its pixel.
    values = jnp.broadcast_to(values, (b, pixels, prod(images.shape[1:]) // pixels)).reshape(b, -1, 1)
    return _correlate_losses(values, n, samples, spec, model, variables, images, targets, key, baseline)


def _correlate_losses(
    values: PixelValues,
    n: int | None,
    samples: int,
    spec: ScoreSpec,
    model: Model,
    variables: PyTree,
    images: Images,
    targets: Targets,
    key: Keys,
    baseline: Baseline,
) -> Float[Array, " b"]:
    """Correlate the summed values of random pixels with the losses of the score without them."""
    require(samples >= 2, f"samples={samples}: expected at least 2")
    pixels = values.shape[1]
    count = max(1, pixels // 5) if n is None else n
    require(1 <= count <= pixels, f"n={count}: expected 1 to {pixels}, the number of pixels")

    def remove_random_pixels(query, keys, values):
        mask = jax.vmap(lambda key: _draw_subset(key, pixels, count))(keys)
        return _remove_pixels(query, values, mask)

    def measure(query, values):
        predicted, actual = _sample_losses(query, values, samples, remove_random_pixels)
        return compute_correlation(jnp.moveaxis(predicted, 0, -1), jnp.moveaxis(actual, 0, -1))

    return map_over_batch(measure, spec, model, variables, images, targets, key, baseline, values)


def _draw_subset(key: Key[Array, ""], size: int, count: int) -> Bool[Array, " size"]:
    """Draw a subset with exactly `count` of `size` elements: those with the smallest random numbers."""
    # The lowest bits are the place, so that no two numbers are equal. XLA sorts one array four times as fast as
    # `jax.random.permutation` sorts pairs.
    places = jnp.arange(size, dtype=jnp.uint32)
    low = jnp.uint32(2 ** size.bit_length() - 1)
    numbers = jax.random.bits(key, (size,), jnp.uint32) & ~low | places
    return numbers <= jnp.sort(numbers)[count - 1]


def _remove_pixels(
    query: Query, values: PixelValues, mask: Bool[Array, "b pixels"]
) -> tuple[Float[Array, " b"], Float[Array, "b ..."]]:
    """Return the sum of the values under the mask, and the images without these pixels."""
    return jnp.sum(mask * values.sum(axis=2), axis=1), replace_pixels(query.images, query.baseline, mask)


def _subtract_noise(
    query: Query, keys: Key[Array, " b"], values: PixelValues, noise: float
) -> tuple[Float[Array, " b"], Float[Array, "b ..."]]:
    """Return the product of noise and values, and the images minus the noise."""
    drawn = noise * jax.vmap(lambda key: jax.random.normal(key, query.images.shape[1:], query.images.dtype))(keys)
    return jnp.sum(drawn.reshape(*values.shape[:2], -1) * values, axis=(1, 2)), query.images - drawn


def _fit_scale(
    predicted: Float[Array, "samples b 1"], actual: Float[Array, "samples b 1"]
) -> Float[Array, "samples b 1"]:
    """Scale the predicted losses of each example to the least squared error."""
    # Divided by the largest first: the squares of small values would underflow.
    largest = jnp.abs(predicted).max(axis=0, keepdims=True)
    predicted = predicted / jnp.where(largest == 0, 1, largest)
    squares = jnp.sum(predicted**2, axis=0, keepdims=True)
    return predicted * jnp.sum(predicted * actual, axis=0, keepdims=True) / jnp.where(squares == 0, 1, squares)


def _sample_losses(
    query: Query, values: PixelValues, samples: int, perturb: Perturb
) -> tuple[Float[Array, "samples b 1"], Float[Array, "samples b 1"]]:
    """Return the losses of the score under random perturbations, as predicted by the values and as they are."""
    query, score = query.resolve_targets()

    def sample(j):
        predicted, images = perturb(query, fold_sample_keys(query.keys, j), values)
        return predicted[:, None], score - query.compute_scores(images)

    return map_over(sample, jnp.arange(samples), query.points_per_call)
