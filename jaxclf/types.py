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


def promote_float(x: Array) -> Array:
    """Return floats in the type that sums are kept in: float32, or float64 if x64 is enabled.

    Sums in bfloat16 or float16, with 8 and 11 significant bits, stop growing after some hundred or thousand terms.
    """
    return jnp.asarray(x, jnp.promote_types(x.dtype, jnp.result_type(float)))


def to_unit_range(images: Array, dtype: Literal["float32", "float64"] = "float32") -> Float[Array, ...]:
    """Scale images to [0, 1]: divide integers by 255, and return floats, which are in [0, 1] already, unchanged."""
    if jnp.issubdtype(images.dtype, jnp.integer):
        return images.astype(dtype) / 255
    return images


class Batch(NamedTuple):
    """Examples of one step. Rows where `mask` is false are padding and do not affect the result."""

    images: Any  # [b, h, w, c], uint8 as stored or float in [0, 1]
    labels: Any  # [b] integers, or [b, classes] probabilities
    mask: Any  # [b] booleans
    weights: Any = None  # [b] loss weights of the examples; None: all are 1


@runtime_checkable
class ImageSource(Protocol):
    """Images by index: a NumPy array, or an object that decodes files on demand."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Number, height, width and channels of the images."""
        ...

    def __getitem__(self, indices: Any, /) -> np.ndarray: ...


@dataclass(frozen=True, eq=False)
class Split:
    """One part of a dataset, such as its training images.

    Args:
        images: Images [n, h, w, c] by index: uint8, or floats in [0, 1].
        labels: Integer labels [n].
        class_names: The name of each class.
        sample_weight: Loss weights [n] of the images, or None if all are 1.

    Raises:
        UserError: If the labels do not fit the images or the class names.
    """

    images: ImageSource
    labels: np.ndarray
    class_names: tuple[str, ...]
    sample_weight: np.ndarray | None = None

    def __post_init__(self):
        count = self.images.shape[0]
        require(len(self.labels) == count, f"{count} images but {len(self.labels)} labels: expected one per image")
        require(
            self.labels.ndim == 1 and np.issubdtype(self.labels.dtype, np.integer),
            f"labels are {self.labels.dtype}{list(self.labels.shape)}: expected integers [n]",
        )
        if count and not 0 <= self.labels.min() <= self.labels.max() < len(self.class_names):
            raise UserError(
                f"labels range from {self.labels.min()} to {self.labels.max()}, "
                f"but there are {len(self.class_names)} classes: 0 to {len(self.class_names) - 1}"
            )
        if self.sample_weight is not None:
            shape = self.sample_weight.shape
            require(shape == (count,), f"sample_weight has shape {list(shape)}: expected [{count}], one per image")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of one image."""
        _, height, width, channels = self.images.shape
        return height, width, channels

    def sample_indices(self, limit: int) -> np.ndarray:
        """Return the sorted indices of at most `limit` random images, the same ones in every call."""
        # Not the first images: those of an image folder are sorted by class.
        return np.sort(np.random.default_rng(0).permutation(len(self))[:limit])


class FileRecord(NamedTuple):
    """An image file of a dataset."""

    path: str
    """Relative to the root of the dataset."""
    label: str
    """Name of its class."""
    split: str
    digest: str
    """SHA-256 of its content, in hexadecimal."""


@dataclass(frozen=True, eq=False)
class Splits:
    """The disjoint parts of a dataset. A part without images is None."""

    train: Split
    validation: Split | None
    test: Split | None
    remarks: tuple[str, ...] = ()
    """Notes for the user on how the splits were made, one line each."""
    skipped: tuple[str, ...] = ()
    """Files that could not be used, each with the reason."""
    files: tuple[FileRecord, ...] = ()
    """The files of the images, where a run is to keep which split each is in."""

    def __post_init__(self):
        for name, split in self.items():
            require(split is None or len(split) > 0, f"the {name} split has no images; leave it out with None")

    def items(self) -> Iterator[tuple[str, Split | None]]:
        """Return an iterator over the names of the splits and the splits."""
        return iter((("train", self.train), ("validation", self.validation), ("test", self.test)))

    def __getitem__(self, name: str) -> Split:
        split = dict(self.items()).get(name)
        if split is None:
            present = ", ".join(part for part, split in self.items() if split is not None)
            raise UserError(f"this dataset has no split {name!r}; it has {present}")
        return split
