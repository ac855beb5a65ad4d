"""Mixup and CutMix. They take two examples and change labels, so they are not augmentations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, Key, Shaped

from jaxclf.augment.base import Images
from jaxclf.augment.erasing import mark_box
from jaxclf.errors import require
from jaxclf.types import Array, to_unit_range

Probabilities = Float[Array, "b classes"]


@runtime_checkable
class Mixer(Protocol):
    """The protocol of what mixes each example with another one."""

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
            positions: The position of each example in the whole batch. With the key it determines how it is mixed.
            images: Images [b, h, w, c].
            labels: Class probabilities [b, classes].
            partner_images: Images of the partners [b, h, w, c].
            partner_labels: Class probabilities of the partners [b, classes].

        Returns:
            Images in [0, 1] and class probabilities.
        """
        ...


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
        """Mix each example with its partner: weighted means of images and labels."""
        weights = jax.vmap(lambda key: draw_weight(key, self.alpha))(_fold_in(key, positions))

        def interpolate(mine, partners):
            weight = _expand(weights, mine)
            return weight * mine + (1 - weight) * partners

        return interpolate(to_unit_range(images), to_unit_range(partner_images)), interpolate(labels, partner_labels)


@dataclass(frozen=True)
class CutMix:
    """Paste a random rectangle of another image, and mix the labels by area. S. Yun et al. (2019), arXiv:1905.04899."""

    alpha: float = 1.0
    """Parameter of the distribution Beta(alpha, alpha) of the fraction of the area that is kept."""

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
        """Mix each example with its partner; labels have the weights of the areas, after clipping at the border."""
        shape = images.shape[1:3]
        pasted = jax.vmap(lambda key: self._draw_rectangle(key, shape))(_fold_in(key, positions))
        mixed = jnp.where(pasted[..., None], to_unit_range(partner_images), to_unit_range(images))
        weight = pasted.mean((1, 2))[:, None]
        return mixed, (1 - weight) * labels + weight * partner_labels

    def _draw_rectangle(self, key: Key[jax.Array, ""], shape: tuple[int, ...]) -> Bool[Array, "h w"]:
        """Return which pixels are pasted: a rectangle in proportion to the image around a random pixel of it."""
        weight_key, place_key = jax.random.split(key)
        size = jnp.array(shape)
        half = (jnp.sqrt(1 - draw_weight(weight_key, self.alpha)) / 2 * size).astype(int)
        center = jax.random.randint(place_key, (2,), 0, size)
        return mark_box(shape, center - half, center + half)


@dataclass(frozen=True)
class MixupOrCutMix:
    """Mix each example by CutMix with some probability, by mixup otherwise."""

    mixup: Mixup = Mixup()
    """Mixup."""
    cutmix: CutMix = CutMix()
    """CutMix."""
    cutmix_probability: float = 0.5
    """Probability of CutMix."""

    def __post_init__(self):
        chance = self.cutmix_probability
        require(0 <= chance <= 1, f"cutmix_probability={chance}: expected 0 to 1")

    def mix(
        self,
        key: Key[jax.Array, ""],
        positions: Int[Array, " b"],
        images: Images,
        labels: Probabilities,
        partner_images: Images,
        partner_labels: Probabilities,
    ) -> tuple[Float[Array, "b h w c"], Probabilities]:
        """Mix each example with its partner by one of the two."""
        chance_key, mix_key = jax.random.split(key)
        cut = jax.vmap(lambda key: jax.random.bernoulli(key, self.cutmix_probability))(_fold_in(chance_key, positions))
        examples = images, labels, partner_images, partner_labels
        both = (mixer.mix(mix_key, positions, *examples) for mixer in (self.cutmix, self.mixup))
        return jax.tree.map(lambda a, b: jnp.where(_expand(cut, a), a, b), *both)


def _fold_in(key: Key[jax.Array, ""], positions: Int[Array, " b"]) -> Key[jax.Array, " b"]:
    """Return the key of each example."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, positions)


def _expand(values: Shaped[Array, " b"], like: Array) -> Shaped[Array, "b ..."]:
    """Return a value for each example with as many axes as an array of examples."""
    return values.reshape(-1, *(1,) * (like.ndim - 1))


def draw_weight(key: Key[jax.Array, ""], alpha: float) -> Float[Array, ""]:
    """Draw from Beta(alpha, alpha), through Student's t with 2 alpha degrees of freedom. R. Bailey (1994)."""
    # jax.random.beta is a loop: it compiles slowly, and on sharded arguments it communicates between devices.
    radius, turn = jax.random.uniform(key, (2,))
    inner = (1 - radius) ** (1 / alpha)
    angle = jnp.arctan2(jnp.sqrt(1 - inner) * jnp.cos(2 * jnp.pi * turn), jnp.sqrt(inner))
    return (1 + jnp.sin(angle)) / 2
