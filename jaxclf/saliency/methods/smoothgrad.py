"""SmoothGrad and its variants: the mean or variance of a method over noisy copies of the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Float, Key

from jaxclf.errors import require
from jaxclf.saliency.base import Method, Wrapper
from jaxclf.saliency.batching import fold
from jaxclf.saliency.methods.gradient import Gradient
from jaxclf.saliency.query import Attribution, Query, make_attribution
from jaxclf.saliency.sampling import Moments, fold_sample_keys
from jaxclf.types import Array


@dataclass(frozen=True)
class Noisy(Wrapper):
    """Base class of methods that add Gaussian noise to the image. All of them draw the same noise for the same key."""

    method: Method = Gradient()
    """The method that is applied to each noisy image. A predicted class is that of the image without noise."""
    samples: int = 25
    """Number of noisy images per example."""
    noise: float = 0.15
    """Standard deviation of the noise."""
    noise_scale: Literal["range", "absolute"] = "range"
    """`noise` is relative to the range of values of each image, or absolute, in units of [0, 1]."""
    antithetic: bool = False
    """Use each noise twice, with both signs: exact if the method is linear in the image."""

    def __post_init__(self):
        least = 2 if isinstance(self, VarGrad) else 1
        require(self.samples >= least, f"samples={self.samples}: expected at least {least}")
        even = self.samples + self.samples % 2
        require(
            not self.antithetic or self.samples == even,
            f"samples={self.samples}: antithetic noise needs an even number of samples; try {even}",
        )
        require(self.noise >= 0, f"noise={self.noise}: expected at least 0")

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

        def combine(a, b):
            return a[0].merge(b[0]), a[1] + b[1]

        moments, evaluations = fold(compute_group, combine, jnp.arange(self.samples // len(signs)), draws_per_call)
        values, stderr = self._estimate(moments)
        return make_attribution(query, values, score, 0, stderr)._replace(evaluations=evaluations + 1)

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
