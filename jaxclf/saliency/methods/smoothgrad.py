"""What a method says on average, or how much that varies, when noise is added to the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Float, Key

from jaxclf.errors import require
from jaxclf.saliency.attribution import Attribution
from jaxclf.saliency.base import Method, Wrapper
from jaxclf.saliency.batching import fold
from jaxclf.saliency.methods.gradient import Gradient
from jaxclf.saliency.query import Query, attribution
from jaxclf.saliency.sampling import Moments, sample_keys
from jaxclf.types import Array


@dataclass(frozen=True)
class Noisy(Wrapper):
    """A method at images with Gaussian noise. With the same key all of its kinds draw the same noise."""

    method: Method = Gradient()
    """What is asked about each noisy image. The class is that predicted for the clean one, where none is given."""
    samples: int = 25
    """Noisy images an example."""
    noise: float = 0.15
    """Standard deviation of the noise."""
    noise_scale: Literal["range", "absolute"] = "range"
    """The noise is a share of the image's largest minus its smallest value, or is given in [0, 1] units."""
    antithetic: bool = False
    """Every noise is used twice, the second time with its sign changed: exact where the method is linear."""

    def __post_init__(self):
        least = 2 if isinstance(self, VarGrad) else 1
        require(self.samples >= least, f"samples={self.samples}: expected at least {least}")
        even = self.samples + self.samples % 2
        require(
            not self.antithetic or self.samples == even,
            f"samples={self.samples}: antithetic noise comes in pairs; try {even}",
        )
        require(self.noise >= 0, f"noise={self.noise}: expected at least 0")

    @property
    def sampled(self) -> bool:
        """It draws the noise."""
        return True

    def explain(self, query: Query) -> Attribution:
        """The method at every noisy image, and one pass forward for the score at the clean one."""
        query, score = query.settled()
        signs = (1.0, -1.0) if self.antithetic else (1.0,)
        at_once = max(1, query.points_at_once // len(signs))
        few = query.replace(max_rows=max(query.max_rows // (at_once * len(signs)), query.images.shape[0]))

        def sample(j):
            keys = sample_keys(query.keys, j)
            noise = self._noise(query.images, keys)
            answers = [self.method.explain(few.replace(images=query.images + s * noise, keys=keys)) for s in signs]
            values = self._terms(jnp.stack([answer.values for answer in answers]))
            return values, jnp.stack([answer.evaluations for answer in answers]).sum(axis=0)

        def of_group(js):
            values, evaluations = jax.vmap(sample)(js)
            return Moments.of(values.reshape(-1, *values.shape[2:])), evaluations.sum(axis=0)

        def combine(a, b):
            return a[0].merge(b[0]), a[1] + b[1]

        moments, evaluations = fold(of_group, combine, jnp.arange(self.samples // len(signs)), at_once)
        values, stderr = self._estimate(moments)
        return attribution(query, values, score, 0, stderr)._replace(evaluations=evaluations + 1)

    def _noise(self, images: Float[Array, "b ..."], keys: Key[Array, " b"]) -> Float[Array, "b ..."]:
        noise = jax.vmap(lambda key: jax.random.normal(key, images.shape[1:], images.dtype))(keys)
        if self.noise_scale == "absolute":
            return self.noise * noise
        axes = tuple(range(1, images.ndim))
        return self.noise * (images.max(axes, keepdims=True) - images.min(axes, keepdims=True)) * noise

    def _terms(self, values: Float[Array, "signs b heads ..."]) -> Float[Array, "terms b heads ..."]:
        """What one noise, with each of its signs, adds to the samples."""
        return values.mean(axis=0, keepdims=True)

    def _estimate(self, moments: Moments) -> tuple[Float[Array, "b heads ..."], Float[Array, "b heads ..."]]:
        """The values and their standard error."""
        return moments.mean, moments.stderr


@dataclass(frozen=True)
class SmoothGrad(Noisy):
    """The mean over noisy images.

    D. Smilkov et al., "SmoothGrad: removing noise by adding noise" (2017), arXiv:1706.03825.
    """


@dataclass(frozen=True)
class SmoothGradSquared(Noisy):
    """The mean of the squares over noisy images.

    S. Hooker et al., "A benchmark for interpretability methods in deep neural networks" (2019), arXiv:1806.10758.
    """

    def _terms(self, values: Float[Array, "signs b heads ..."]) -> Float[Array, "terms b heads ..."]:
        return jnp.square(values).mean(axis=0, keepdims=True)


@dataclass(frozen=True)
class VarGrad(Noisy):
    """The variance over noisy images, divided by samples - 1.

    J. Adebayo et al., "Local explanation methods for deep neural networks lack sensitivity to parameter values" (2018),
    arXiv:1810.03307.
    """

    def _terms(self, values: Float[Array, "signs b heads ..."]) -> Float[Array, "terms b heads ..."]:
        return values

    def _estimate(self, moments: Moments) -> tuple[Float[Array, "b heads ..."], Float[Array, "b heads ..."]]:
        # Two of a pair may be at the same distance from the mean, and then say it once.
        return moments.variance, moments.stderr_of_variance * (2**0.5 if self.antithetic else 1)
