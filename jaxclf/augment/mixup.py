"""Mixup. It takes two examples and changes labels, so it is not an `Augmentation`."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, Key

from jaxclf.augment.base import Images
from jaxclf.errors import require
from jaxclf.types import Array, to_unit_range

Probabilities = Float[Array, "b classes"]


@dataclass(frozen=True)
class Mixup:
    """Mix the images and labels of pairs of examples. H. Zhang et al. (2018), arXiv:1710.09412."""

    alpha: float = 0.2
    """Parameter of the distribution Beta(alpha, alpha) of the weights: near 0 or 1 if small, near 1/2 if large."""

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
        """Mix each example with its partner.

        Args:
            key: The random key of the step.
            positions: The position of each example in the whole batch. With the key it determines the weight.
            images: Images [b, h, w, c].
            labels: Class probabilities [b, classes].
            partner_images: Images of the partners [b, h, w, c].
            partner_labels: Class probabilities of the partners [b, classes].

        Returns:
            Images in [0, 1] and class probabilities.
        """
        keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, positions)
        weights = jax.vmap(self._draw_weight)(keys)

        def interpolate(mine, partners):
            weight = weights.reshape(-1, *(1,) * (mine.ndim - 1))
            return weight * mine + (1 - weight) * partners

        return interpolate(to_unit_range(images), to_unit_range(partner_images)), interpolate(labels, partner_labels)

    def _draw_weight(self, key: Key[jax.Array, ""]) -> Float[Array, ""]:
        """Draw from Beta(alpha, alpha), through Student's t with 2 alpha degrees of freedom. R. Bailey (1994)."""
        # jax.random.beta is a loop: it compiles slowly, and on sharded arguments it communicates between devices.
        radius, turn = jax.random.uniform(key, (2,))
        inner = (1 - radius) ** (1 / self.alpha)
        angle = jnp.arctan2(jnp.sqrt(1 - inner) * jnp.cos(2 * jnp.pi * turn), jnp.sqrt(inner))
        return (1 + jnp.sin(angle)) / 2
