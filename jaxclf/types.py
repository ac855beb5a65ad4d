"""Array aliases, batches and dataset splits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Integer

from jaxclf.errors import UserError, require

Array = jax.Array | np.ndarray
Logits = Float[Array, "b classes"]
Labels = Integer[Array, " b"] | Float[Array, "b classes"]
Mask = Bool[Array, " b"]
Remainder = Literal["drop", "pad"]
"""What happens to the last partial batch of an epoch."""
Variables = dict[str, Any]
"""Flax variables: the collection `params`, and others such as `batch_stats`."""


def unit_range(images: Array) -> Float[Array, ...]:
    """Integer images divided by 255; float images are taken as in [0, 1] already."""
    if jnp.issubdtype(images.dtype, jnp.integer):
        return images.astype(jnp.float32) / 255
    return images


class Batch(NamedTuple):
    """Examples fed together. Rows where `mask` is false are padding and count for nothing."""

    images: Any  # [b, h, w, c], uint8 as stored or float in [0, 1]
    labels: Any  # [b] integers, or [b, classes] probabilities
    mask: Any  # [b] booleans


@runtime_checkable
class ImageSource(Protocol):
    """Images by index. A NumPy array is one; a folder that decodes on demand is another."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Number, height, width and channels of the images."""
        ...

    def __getitem__(self, indices: Any, /) -> np.ndarray: ...


@dataclass(frozen=True, eq=False)
class Split:
    """One part of a dataset: `images` [n, h, w, c] by index, `labels` [n], and a name for each class."""

    images: ImageSource
    labels: np.ndarray
    class_names: tuple[str, ...]

    def __post_init__(self):
        if len(self.labels) != self.images.shape[0]:
            raise UserError(f"{self.images.shape[0]} images but {len(self.labels)} labels: one label an image")
        if self.labels.ndim != 1 or not np.issubdtype(self.labels.dtype, np.integer):
            raise UserError(f"labels are {self.labels.dtype}{list(self.labels.shape)}: expected integers [n]")
        if len(self.labels) and not 0 <= self.labels.min() <= self.labels.max() < len(self.class_names):
            raise UserError(
                f"labels run from {self.labels.min()} to {self.labels.max()}, "
                f"but there are {len(self.class_names)} classes: 0 to {len(self.class_names) - 1}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of one image."""
        _, height, width, channels = self.images.shape
        return height, width, channels

    def some(self, most: int) -> np.ndarray:
        """Indices of a few images at random, the same every time: folders come class by class."""
        return np.sort(np.random.default_rng(0).permutation(len(self))[:most])


@dataclass(frozen=True, eq=False)
class Splits:
    """The disjoint parts of a dataset. A part with no images is None."""

    train: Split
    validation: Split | None
    test: Split | None
    remarks: tuple[str, ...] = ()
    """What the user should know of how they were made, a line each."""
    skipped: tuple[str, ...] = ()
    """Files that could not be used, each with its reason."""

    def __post_init__(self):
        for name, split in self.items():
            require(split is None or len(split) > 0, f"the {name} split has no images; leave it out with None")

    def items(self) -> Iterator[tuple[str, Split | None]]:
        """Every split by name."""
        return iter((("train", self.train), ("validation", self.validation), ("test", self.test)))

    def __getitem__(self, name: str) -> Split:
        split = dict(self.items()).get(name)
        if split is None:
            present = ", ".join(part for part, split in self.items() if split is not None)
            raise UserError(f"this dataset has no split {name!r}; it has {present}")
        return split
