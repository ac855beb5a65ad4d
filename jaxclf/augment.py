"""Augmentations on the device. One is a frozen dataclass that maps `(key, image)` to an image of the same kind.

`Mixup` is none of them: it mixes examples, images and labels, and so has a method `mix` and cannot be called.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, Key, Num

from jaxclf.types import Array, require, unit_range

Image = Num[Array, "h w c"]
Images = Num[Array, "b h w c"]
Probabilities = Float[Array, "b classes"]


@runtime_checkable
class Augmentation(Protocol):
    """What a config's `augment` lists: one image in, one image of the same shape and dtype out."""

    def __call__(self, key: Key[jax.Array, ""], image: Image) -> Image:
        """Change the image at random. The same key gives the same change."""
        ...


@dataclass(frozen=True)
class Shift:
    """Move the image by up to `pixels` up or down and left or right; what comes in is black."""

    pixels: int = 2
    """Largest shift along each axis, in pixels."""

    def __post_init__(self):
        require(self.pixels >= 0, f"pixels={self.pixels}: expected at least 0")

    def __call__(self, key: Key[jax.Array, ""], image: Image) -> Image:
        """A shifted image [h, w, c]."""
        p = self.pixels
        padded = jnp.pad(image, ((p, p), (p, p), (0, 0)))
        down, right = jax.random.randint(key, (2,), 0, 2 * p + 1)
        return jax.lax.dynamic_slice(padded, (down, right, 0), image.shape)


@dataclass(frozen=True)
class Flip:
    """Mirror the image, left to right."""

    probability: float = 0.5
    """Share of the images that are mirrored."""

    def __post_init__(self):
        require(0 <= self.probability <= 1, f"probability={self.probability}: expected 0 to 1")

    def __call__(self, key: Key[jax.Array, ""], image: Image) -> Image:
        """The image [h, w, c] or its mirror image."""
        return jnp.where(jax.random.bernoulli(key, self.probability), image[:, ::-1], image)


@dataclass(frozen=True)
class Rotate:
    """Turn the image about its centre by up to `degrees` either way; what comes in is black."""

    degrees: float = 10.0
    """Largest angle."""

    def __post_init__(self):
        require(0 <= self.degrees <= 180, f"degrees={self.degrees}: expected 0 to 180")

    def __call__(self, key: Key[jax.Array, ""], image: Image) -> Image:
        """A turned image [h, w, c]."""
        return rotate(image, jax.random.uniform(key, minval=-self.degrees, maxval=self.degrees))


def rotate(image: Image, degrees: Float[Array, ""] | float) -> Image:
    """The image turned counterclockwise about its centre, bilinear, as if it were surrounded by black."""
    height, width, _ = image.shape
    middle_y, middle_x = (height - 1) / 2, (width - 1) / 2
    down, right = jnp.arange(height)[:, None] - middle_y, jnp.arange(width)[None] - middle_x
    cosine, sine = jnp.cos(jnp.deg2rad(degrees)), jnp.sin(jnp.deg2rad(degrees))
    y, x = cosine * down + sine * right + middle_y, cosine * right - sine * down + middle_x
    top, left = jnp.floor(y).astype(int), jnp.floor(x).astype(int)
    corners = ((row, column) for row in (top, top + 1) for column in (left, left + 1))
    turned = sum((_share(image, row, column, y, x) for row, column in corners), start=jnp.zeros(image.shape))
    # Cut off, not rounded, integers would come out half a step too dark on average.
    return (jnp.rint(turned) if jnp.issubdtype(image.dtype, jnp.integer) else turned).astype(image.dtype)


def _share(
    image: Image, row: Int[Array, "h w"], column: Int[Array, "h w"], y: Float[Array, "h w"], x: Float[Array, "h w"]
) -> Float[Array, "h w c"]:
    """What the pixels at `row`, `column` give to the points between pixels at `y`, `x`."""
    height, width, _ = image.shape
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    weight = jnp.where(inside, (1 - jnp.abs(y - row)) * (1 - jnp.abs(x - column)), 0)
    pixels = image[jnp.clip(row, 0, height - 1), jnp.clip(column, 0, width - 1)]
    return weight[..., None] * pixels.astype(jnp.float32)


@dataclass(frozen=True)
class Cutout:
    """Black out a square whose centre is anywhere in the image. T. DeVries, G. Taylor (2017), arXiv:1708.04552."""

    pixels: int = 8
    """Side of the square; the part of it beyond the border is lost."""

    def __post_init__(self):
        require(self.pixels >= 0, f"pixels={self.pixels}: expected at least 0")

    def __call__(self, key: Key[jax.Array, ""], image: Image) -> Image:
        """The image [h, w, c] less a square."""
        centre = jax.random.randint(key, (2,), 0, jnp.array(image.shape[:2]))
        top, left = centre - self.pixels // 2
        down, right = jnp.arange(image.shape[0])[:, None] - top, jnp.arange(image.shape[1])[None] - left
        inside = (down >= 0) & (down < self.pixels) & (right >= 0) & (right < self.pixels)
        return jnp.where(inside[..., None], 0, image)


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


def augment_batch(
    augmentations: tuple[Augmentation, ...],
    key: Key[jax.Array, ""],
    positions: Int[Array, " b"],
    images: Images,
) -> Images:
    """Apply every augmentation in turn. An image's randomness depends on its position in the batch alone."""

    def augment_one(position, image):
        example_key = jax.random.fold_in(key, position)
        for i, augmentation in enumerate(augmentations):
            image = augmentation(jax.random.fold_in(example_key, i), image)
        return image

    return jax.vmap(augment_one)(positions, images) if augmentations else images
