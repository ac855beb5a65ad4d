"""Mixup. It needs two examples and changes labels, so it is not an `Augmentation`."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, Key

from jaxclf.augment.base import Images
from jaxclf.errors import require
from jaxclf.types import Array, unit_range

Probabilities = Float[Array, "b classes"]


@dataclass(frozen=True)
class Mixup:
    """Mix every example with a partner, images and labels alike. H. Zhang et al. (2018), arXiv:1710.09412."""

    alpha: float = 0.2
    """Weights are drawn from Beta(alpha, alpha): near 0 or 1 if it is small, near 1/2 if it is large."""

    def __post_init__(self):
        require(self.alpha > 0, f"alpha={self.alpha}: expected more than 0")

    def mix(
        self,
        key: Key[jax.Array, ""],
        positions: Int[Array, " b"],
        images: Images,
        labels: Probabilities,
        partner_images: Images,
        partner_labels: Probabilities,
    ) -> tuple[Float[Array, "b h w c"], Probabilities]:
        """Mixed images in [0, 1] and labels. An example's weight depends on its position in the batch alone."""
        keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, positions)
        weights = jax.vmap(self._draw_weight)(keys)

        def mixed(mine, partners):
            weight = weights.reshape(-1, *(1,) * (mine.ndim - 1))
            return weight * mine + (1 - weight) * partners

        return mixed(unit_range(images), unit_range(partner_images)), mixed(labels, partner_labels)

    def _draw_weight(self, key: Key[jax.Array, ""]) -> Float[Array, ""]:
        """From Beta(alpha, alpha), by way of Student's t with 2 alpha degrees of freedom. R. Bailey (1994)."""
        # jax.random.beta is a loop: slow to compile, and split over devices it has them meet.
        radius, turn = jax.random.uniform(key, (2,))
        inner = (1 - radius) ** (1 / self.alpha)
        angle = jnp.arctan2(jnp.sqrt(1 - inner) * jnp.cos(2 * jnp.pi * turn), jnp.sqrt(inner))
        return (1 + jnp.sin(angle)) / 2
