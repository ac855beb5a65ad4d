"""RandAugment and TrivialAugment.

Whatever is drawn, an image gets one affine warp, one linear map of its colors, one table of 256 levels and one filter,
in this order. So every draw costs the same, and no branch is computed for nothing: under `vmap`, all of them are.

A single operation is that of torchvision. Of several operations, those of one kind are combined into one: warps and
tables are composed in the order they are drawn, and factors of colors and of sharpness are multiplied. Operations of
different kinds follow the order above.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, Key

from jaxclf.augment.base import Image, Shape
from jaxclf.augment.color import adjust_color, clip_like
from jaxclf.augment.resample import Interpolation, warp
from jaxclf.augment.tables import (
    LEVELS,
    Table,
    apply_table,
    build_tables,
    count_levels,
    move_counts,
    to_levels,
)
from jaxclf.errors import require
from jaxclf.types import Array

OPERATIONS = (
    "identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness", "color", "contrast",
    "sharpness", "posterize", "solarize", "autocontrast", "equalize",
)  # fmt: skip
TABLES = ("posterize", "solarize", "autocontrast", "equalize")


class Strengths(NamedTuple):
    """What the operations do at the highest magnitude."""

    shear: float
    """Pixels in x for each pixel in y, or the other way round."""
    translate_x: float
    """Pixels."""
    translate_y: float
    """Pixels."""
    degrees: float
    """Rotation in degrees."""
    factor: float
    """Difference from 1 of the factors of brightness, color, contrast and sharpness."""
    bits: int
    """Bits that posterize drops."""


class Operation(NamedTuple):
    """An operation as it is drawn."""

    kind: Int[Array, ""]
    """Its index in OPERATIONS."""
    magnitude: Float[Array, ""]
    """From 0 to 1. Solarize inverts the levels from 1 - magnitude."""
    sign: Float[Array, ""]
    """1 or -1: the direction, or more or less."""

    def is_kind(self, name: str) -> Bool[Array, ""]:
        """Return whether this is the operation of a name."""
        return self.kind == OPERATIONS.index(name)

    def measure(self, name: str, strength: float) -> Float[Array, ""]:
        """Return the signed strength of the operation of a name; 0 if this is another one."""
        return jnp.where(self.is_kind(name), self.sign * self.magnitude * strength, 0)


@dataclass(frozen=True)
class RandAugment:
    """Apply random operations of one magnitude. E. Cubuk et al. (2019), arXiv:1909.13719.

    Operations and magnitudes are those of torchvision. For images of 1 or 3 channels.
    """

    operations: int = 2
    """Number of operations, drawn from fourteen; an operation may be drawn twice."""
    magnitude: int = 9
    """Magnitude of the operations, from 0 to below `bins`."""
    bins: int = 31
    """Number of magnitudes."""
    interpolation: Interpolation = "nearest"
    """Of rotations, shears and translations."""

    def __post_init__(self):
        require(self.operations >= 1, f"operations={self.operations}: expected at least 1")
        require(self.bins >= 2, f"bins={self.bins}: expected at least 2")
        require(
            0 <= self.magnitude < self.bins, f"magnitude={self.magnitude}: expected 0 to {self.bins - 1}, below bins"
        )

    def __call__(self, key: Key[jax.Array, ""], image: Image) -> Image:
        """Return a changed image [h, w, c]."""
        magnitude = jnp.float32(self.magnitude / (self.bins - 1))
        drawn = [_draw_operation(one, magnitude) for one in jax.random.split(key, self.operations)]
        return apply_operations(image, drawn, get_strengths(image.shape), self.interpolation)


@dataclass(frozen=True)
class TrivialAugment:
    """Apply one random operation of a random magnitude. S. Müller, F. Hutter (2021), arXiv:2103.10158.

    Operations and magnitudes are those of the wide version, as in torchvision. For images of 1 or 3 channels.
    """

    bins: int = 31
    """Number of magnitudes."""
    interpolation: Interpolation = "nearest"
    """Of rotations, shears and translations."""

    def __post_init__(self):
        require(self.bins >= 2, f"bins={self.bins}: expected at least 2")

    def __call__(self, key: Key[jax.Array, ""], image: Image) -> Image:
        """Return a changed image [h, w, c]."""
        magnitude_key, operation_key = jax.random.split(key)
        magnitude = jax.random.randint(magnitude_key, (), 0, self.bins) / (self.bins - 1)
        return apply_operations(image, [_draw_operation(operation_key, magnitude)], WIDE, self.interpolation)


WIDE = Strengths(0.99, 32.0, 32.0, 135.0, 0.99, 6)
"""Of TrivialAugment."""


def get_strengths(shape: Shape) -> Strengths:
    """Return the strengths of RandAugment for images of a shape."""
    height, width, _ = shape
    return Strengths(0.3, 150 / 331 * width, 150 / 331 * height, 30.0, 0.9, 4)


def _draw_operation(key: Key[jax.Array, ""], magnitude: Float[Array, ""]) -> Operation:
    kind_key, sign_key = jax.random.split(key)
    sign = jnp.where(jax.random.bernoulli(sign_key), 1.0, -1.0)
    return Operation(jax.random.randint(kind_key, (), 0, len(OPERATIONS)), magnitude, sign)


def apply_operations(
    image: Image, operations: list[Operation], strengths: Strengths, interpolation: Interpolation = "nearest"
) -> Image:
    """Apply operations to an image: a warp, a map of colors, a table and a filter.

    Args:
        image: An image [h, w, c] with 1 or 3 channels.
        operations: What was drawn, in order.
        strengths: What the operations do at the highest magnitude.
        interpolation: Of the warp.

    Returns:
        An image of the same shape and dtype.
    """

    def multiply_factors(name: str) -> Float[Array, ""]:
        return jnp.prod(jnp.stack([1 + one.measure(name, strengths.factor) for one in operations]))

    matrix = jnp.eye(3)
    for one in operations:
        matrix = jnp.matmul(matrix, _build_matrix(one, strengths, image.shape), precision="highest")
    color = [multiply_factors(name) for name in ("brightness", "contrast", "color")]
    sharpness = multiply_factors("sharpness")
    used = jnp.stack([one.is_kind(name) for one in operations for name in TABLES]).any()
    stages = (
        lambda image, table: (warp(image, matrix, interpolation), table),
        lambda image, table: (adjust_color(image, *color), table),
        lambda image, table: (image, _build_table(image, operations, strengths)),
        lambda image, table: (apply_table(image, table, used), table),
        lambda image, table: (sharpen(image, sharpness), table),
    )
    # In a loop, since XLA would compute a pixel again for every neighbor and channel that depends on it.
    start = image, jnp.zeros((image.shape[2], LEVELS), int)
    return jax.lax.fori_loop(0, len(stages), lambda i, state: jax.lax.switch(i, stages, *state), start)[0]


def _build_matrix(operation: Operation, strengths: Strengths, shape: Shape) -> Float[Array, "3 3"]:
    """Return the inverse of the affine map of an operation, as `warp` takes it; the identity for other operations."""
    height, width, _ = shape
    radians = jnp.deg2rad(operation.measure("rotate", strengths.degrees))
    shear_x, shear_y = (operation.measure(name, strengths.shear) for name in ("shear_x", "shear_y"))
    right = jnp.trunc(operation.measure("translate_x", strengths.translate_x))
    down = jnp.trunc(operation.measure("translate_y", strengths.translate_y))
    cosine, sine = jnp.cos(radians), jnp.sin(radians)
    return jnp.array(
        [
            [cosine, shear_x - sine, shear_x * height / 2 - right],  # the upper left corner of the image stays
            [shear_y + sine, cosine, shear_y * width / 2 - down],
            [0, 0, 1],
        ]
    )


def _build_table(image: Image, operations: list[Operation], strengths: Strengths) -> Table:
    """Return the table of all operations that are tables; the identity if there is none."""
    counts = count_levels(to_levels(image))
    identity = table = jnp.broadcast_to(jnp.arange(LEVELS), counts.shape)
    for i, one in enumerate(operations):
        bits = jnp.rint(8 - one.magnitude * strengths.bits).astype(int)
        chosen = [one.is_kind(name) for name in TABLES]
        histogram = move_counts(counts, table) if i else counts
        tables = build_tables(bits, (LEVELS - 1) * (1 - one.magnitude), histogram)
        new = jnp.select([jnp.broadcast_to(is_it, identity.shape) for is_it in chosen], list(tables), identity)
        table = jnp.take_along_axis(new, table, axis=1)
    return table


def sharpen(image: Image, factor: Float[Array, ""]) -> Image:
    """Change the sharpness of an image: the distance of each pixel from a smoothed image. The border stays.

    Args:
        image: An image [h, w, c].
        factor: The factor of the distance: 0 is smooth, 1 changes nothing.

    Returns:
        An image of the same shape and dtype.
    """
    height, width, _ = image.shape
    if min(height, width) < 3:
        return image
    x = image.astype(jnp.promote_types(image.dtype, jnp.float32))
    rows = x[:-2] + x[1:-1] + x[2:]
    smooth = (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] + 4 * x[1:-1, 1:-1]) / 13
    smooth = jnp.rint(smooth) if jnp.issubdtype(image.dtype, jnp.integer) else smooth
    return jnp.asarray(image).at[1:-1, 1:-1].set(clip_like(factor * x[1:-1, 1:-1] + (1 - factor) * smooth, image))
