"""Mixup and CutMix. They take two examples and change labels, so they are not augmentations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, Key

from jaxclf.augment.base import Image, Images
from jaxclf.augment.erasing import mark_box
from jaxclf.errors import require
from jaxclf.types import Array, to_unit_range


class LabeledImage(NamedTuple):
    """An image and its label, or the images and labels of a batch."""

    image: Image | Images
    """[h, w, c]"""
    label: Float[Array, "... classes"]
    """Class probabilities [classes]."""


@runtime_checkable
class Mixer(Protocol):
    """The protocol of what mixes each example with another one."""

    def mix(self, key: Key[jax.Array, ""], mine: LabeledImage, partner: LabeledImage) -> LabeledImage:
        """Mix an example with its partner.

        Args:
            key: The random key of the example.
            mine: The example.
            partner: Another example.

        Returns:
            An image in [0, 1] and class probabilities.
        """
        ...


def mix_batch(
    mixer: Mixer, key: Key[jax.Array, ""], positions: Int[Array, " b"], mine: LabeledImage, partners: LabeledImage
) -> LabeledImage:
    """Mix each example of a batch with its partner.

    Args:
        mixer: Mixes a pair of examples.
        key: The random key of the step.
        positions: The position of each example in the whole batch. With the key it determines how it is mixed.
        mine: The examples, images [b, h, w, c] and class probabilities [b, classes].
        partners: The partner of each example.
    """
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, positions)
    return jax.vmap(mixer.mix)(keys, mine, partners)


@dataclass(frozen=True)
class Mixup:
    """Mix the images and labels of pairs of examples. H. Zhang et al. (2018), arXiv:1710.09412."""

    alpha: float = 0.2
    """Parameter of the distribution Beta(alpha, alpha) of the weights: near 0 or 1 if small, near 1/2 if large."""

    def __post_init__(self):
        require(self.alpha > 0, f"alpha={self.alpha}: expected more than 0")

    def mix(self, key: Key[jax.Array, ""], mine: LabeledImage, partner: LabeledImage) -> LabeledImage:
        """Return weighted means of images and labels."""
        weight = draw_weight(key, self.alpha)
        images = to_unit_range(mine.image), to_unit_range(partner.image)
        pairs = images, (mine.label, partner.label)
        return LabeledImage(*(weight * a + (1 - weight) * b for a, b in pairs))


@dataclass(frozen=True)
class CutMix:
    """Paste a random rectangle of another image, and mix the labels by area. S. Yun et al. (2019), arXiv:1905.04899."""

    alpha: float = 1.0
    """Parameter of the distribution Beta(alpha, alpha) of the fraction of the area that is kept."""

    def __post_init__(self):
        require(self.alpha > 0, f"alpha={self.alpha}: expected more than 0")

    def mix(self, key: Key[jax.Array, ""], mine: LabeledImage, partner: LabeledImage) -> LabeledImage:
        """Return the image with a part of the other one; labels have the weights of the areas that are seen."""
        pasted = self._draw_rectangle(key, mine.image.shape[:2])
        mixed = jnp.where(pasted[..., None], to_unit_range(partner.image), to_unit_range(mine.image))
        weight = pasted.mean()
        return LabeledImage(mixed, (1 - weight) * mine.label + weight * partner.label)

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

    def mix(self, key: Key[jax.Array, ""], mine: LabeledImage, partner: LabeledImage) -> LabeledImage:
        """Return the result of one of the two."""
        chance_key, mix_key = jax.random.split(key)
        cut = jax.random.bernoulli(chance_key, self.cutmix_probability)
        both = (mixer.mix(mix_key, mine, partner) for mixer in (self.cutmix, self.mixup))
        return jax.tree.map(lambda a, b: jnp.where(cut, a, b), *both)


def draw_weight(key: Key[jax.Array, ""], alpha: float) -> Float[Array, ""]:
    """Draw from Beta(alpha, alpha), through Student's t with 2 alpha degrees of freedom. R. Bailey (1994)."""
    # jax.random.beta is a loop: it compiles slowly, and on sharded arguments it communicates between devices.
    radius, turn = jax.random.uniform(key, (2,))
    inner = (1 - radius) ** (1 / alpha)
    angle = jnp.arctan2(jnp.sqrt(1 - inner) * jnp.cos(2 * jnp.pi * turn), jnp.sqrt(inner))
    return (1 + jnp.sin(angle)) / 2
