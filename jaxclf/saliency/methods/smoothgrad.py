"""SmoothGrad and its variants: the mean or variance of a method over noisy copies of the image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, Key

from jaxclf.errors import require
from jaxclf.saliency.base import Method, Wrapper
from jaxclf.saliency.batching import fold, fold_until
from jaxclf.saliency.methods.gradient import Gradient
from jaxclf.saliency.query import Attribution, Query, make_attribution
from jaxclf.saliency.sampling import BLOCK, Moments, check_tolerance, fold_sample_keys, is_precise
from jaxclf.types import Array

Sampled = tuple[Moments, Int[Array, "b targets"]]
"""The moments of samples, and the number of evaluations for them."""


@dataclass(frozen=True)
class Noisy(Wrapper):
    """Base class of methods that add Gaussian noise to the image. All of them draw the same noise for the same key."""

    method: Method = Gradient()
    """The method that is applied to each noisy image. A predicted class is that of the image without noise."""
    samples: int = 25
    """Number of noisy images per example; with a tolerance, the largest number."""
    noise: float = 0.15
    """Standard deviation of the noise."""
    noise_scale: Literal["range", "absolute"] = "range"
    """`noise` is relative to the range of values of each image, or absolute, in units of [0, 1]."""
    antithetic: bool = False
    """Use each noise twice, with both signs: exact if the method is linear in the image."""
    tolerance: float | None = None
    """Stop as soon as no pixel's standard error is more than this times the largest absolute value of the map, checked
    after every 16 noise samples. Has no reverse-mode derivative. None: take all samples."""

    def __post_init__(self):
        least = 2 if isinstance(self, VarGrad) else 1
        require(self.samples >= least, f"samples={self.samples}: expected at least {least}")
        even = self.samples + self.samples % 2
        require(
            not self.antithetic or self.samples == even,
            f"samples={self.samples}: antithetic noise needs an even number of samples; try {even}",
        )
        require(self.noise >= 0, f"noise={self.noise}: expected at least 0")
        check_tolerance(self.tolerance)

    @property
    def sampled(self) -> bool:
        """True: the noise is drawn from the key."""
        return True

    def explain(self, query: Query) -> Attribution:
        """Explain a query by the method at each noisy image, and one forward pass for the score without noise."""
        query, score = query.resolve_targets()
        signs = (1.0, -1.0) if self.antithetic else (1.0,)
        draws_per_call = max(1, query.points_per_call // len(signs))
        smaller = query.replace(max_rows=max(query.max_rows // (draws_per_call * len(signs)), query.images.shape[0]))

        def sample(j):
            keys = fold_sample_keys(query.keys, j)
            noise = self._sample_noise(query.images, keys)
            attributions = [
                self.method.explain(smaller.replace(images=query.images + s * noise, keys=keys)) for s in signs
            ]
            values = self._combine_signs(jnp.stack([a.values for a in attributions]))
            return values, jnp.stack([a.evaluations for a in attributions]).sum(axis=0)

        def compute_group(js):
            values, evaluations = jax.vmap(sample)(js)
            return Moments.from_samples(values.reshape(-1, *values.shape[2:])), evaluations.sum(axis=0)

        moments, evaluations = self._fold(compute_group, self.samples // len(signs), draws_per_call)
        values, stderr = self._estimate(moments)
        return make_attribution(query, values, score, 0, stderr)._replace(evaluations=evaluations + 1)

    def _fold(self, compute_group: Callable[[Int[Array, " n"]], Sampled], draws: int, draws_per_call: int) -> Sampled:
        """Return the moments of all draws of the noise, or of as many as the tolerance needs, and the evaluations."""

        def combine(a: Sampled, b: Sampled) -> Sampled:
            return a[0].merge(b[0]), a[1] + b[1]

        tolerance = self.tolerance
        if tolerance is None:
            return fold(compute_group, combine, jnp.arange(draws), draws_per_call)

        def compute_by_target(js: Int[Array, " n"]) -> Sampled:
            moments, evaluations = compute_group(js)
            return moments.count_by_target(), evaluations

        def is_done(sampled: Sampled) -> Bool[Array, "b targets"]:
            return is_precise(*self._estimate(sampled[0]), tolerance)

        moments, evaluations = fold_until(compute_by_target, combine, is_done, draws, BLOCK, draws_per_call)
        return moments, jnp.broadcast_to(evaluations.max(axis=1, keepdims=True), evaluations.shape)

    def _sample_noise(self, images: Float[Array, "b ..."], keys: Key[Array, " b"]) -> Float[Array, "b ..."]:
        noise = jax.vmap(lambda key: jax.random.normal(key, images.shape[1:], images.dtype))(keys)
        if self.noise_scale == "absolute":
            return self.noise * noise
        axes = tuple(range(1, images.ndim))
        return self.noise * (images.max(axes, keepdims=True) - images.min(axes, keepdims=True)) * noise

    def _combine_signs(self, values: Float[Array, "signs b targets ..."]) -> Float[Array, "terms b targets ..."]:
        """Return the samples that one draw of the noise, with its signs, contributes."""
        return values.mean(axis=0, keepdims=True)

    def _estimate(self, moments: Moments) -> tuple[Float[Array, "b targets ..."], Float[Array, "b targets ..."]]:
        """Return the values and their standard errors."""
        return moments.mean, moments.stderr


@dataclass(frozen=True)
class SmoothGrad(Noisy):
    """The mean of a method over noisy images.

    It averages out the fluctuations of gradients from pixel to pixel.
    D. Smilkov et al., "SmoothGrad: removing noise by adding noise" (2017), arXiv:1706.03825.
    """


@dataclass(frozen=True)
class SmoothGradSquared(Noisy):
    """The mean of the squares of a method over noisy images, without signs.

    S. Hooker et al., "A benchmark for interpretability methods in deep neural networks" (2019), arXiv:1806.10758.
    """

    def _combine_signs(self, values: Float[Array, "signs b targets ..."]) -> Float[Array, "terms b targets ..."]:
        return jnp.square(values).mean(axis=0, keepdims=True)


@dataclass(frozen=True)
class VarGrad(Noisy):
    """The unbiased variance of a method over noisy images, without signs.

    J. Adebayo et al., "Local explanation methods for deep neural networks lack sensitivity to parameter values" (2018),
    arXiv:1810.03307.
    """

    def _combine_signs(self, values: Float[Array, "signs b targets ..."]) -> Float[Array, "terms b targets ..."]:
        return values

    def _estimate(self, moments: Moments) -> tuple[Float[Array, "b targets ..."], Float[Array, "b targets ..."]]:
        # The two samples of a pair can be at equal distances from the mean, and then count as one for the variance.
        return moments.variance, moments.stderr_of_variance * (2**0.5 if self.antithetic else 1)
