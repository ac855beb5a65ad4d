"""Dropout and drop path, whose masks do not depend on how a batch is computed."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxclf.errors import require
from jaxclf.models.examples import get_examples
from jaxclf.types import Array


def check_dropout(rate: float, name: str = "dropout") -> None:
    """Raise UserError unless a dropout rate is at least 0 and below 1."""
    require(0 <= rate < 1, f"{name}={rate}: expected at least 0 and below 1")


class Dropout(nn.Module):
    """Dropout whose masks do not depend on how a batch is split over devices or accumulation steps.

    Masks are keyed by the position of an example in the batch, see `jaxclf.models.examples`.
    N. Srivastava et al., "Dropout" (2014).
    """

    rate: float

    @nn.compact
    def __call__(self, x: Float[Array, "b ..."], train: bool) -> Float[Array, "b ..."]:
        """Zero a fraction `rate` of the activations and scale the others by 1 / (1 - rate).

        Args:
            x: Activations.
            train: If False, x is returned unchanged. If True, the random stream "dropout" is needed.
        """
        return _drop(self, x, x.shape[1:]) if train and self.rate else x


class DropPath(nn.Module):
    """Stochastic depth: drops the branch of a residual block for whole examples.

    Which examples is keyed by their position in the batch, as in `Dropout`.
    G. Huang et al., "Deep Networks with Stochastic Depth" (2016), arXiv:1603.09382.
    """

    rate: float

    @nn.compact
    def __call__(self, x: Float[Array, "b ..."], train: bool) -> Float[Array, "b ..."]:
        """Zero the activations of a fraction `rate` of the examples and scale the others by 1 / (1 - rate).

        Args:
            x: Activations of the branch, before they are added.
            train: If False, x is returned unchanged. If True, the random stream "dropout" is needed.
        """
        return _drop(self, x, (1,) * (x.ndim - 1)) if train and self.rate else x


def _drop(module: Dropout | DropPath, x: Float[Array, "b ..."], shape: tuple[int, ...]) -> Float[Array, "b ..."]:
    """Drop activations by a mask of this shape for each example."""
    key, keep_rate, positions = module.make_rng("dropout"), 1 - module.rate, get_examples().positions

    def draw_mask(position):
        return jax.random.bernoulli(jax.random.fold_in(key, position), keep_rate, shape)

    keep = jax.vmap(draw_mask)(jnp.arange(x.shape[0]) if positions is None else positions)
    return jnp.where(keep, x / keep_rate, 0).astype(x.dtype)
