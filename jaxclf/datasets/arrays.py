"""Images and labels in memory, as NumPy or JAX arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TypeAlias, cast

import numpy as np

from jaxclf.datasets.array_checks import check_images, check_labels, check_weights
from jaxclf.errors import UserError, require
from jaxclf.types import Array, Split, Splits


@dataclass(frozen=True)
class ArraySummary:
    """Digest, shape and dtype of an array. A `config.json` holds them in place of the array."""

    sha256: str
    """SHA-256 of the values in C order."""
    shape: tuple[int, ...]
    """Length of each axis."""
    dtype: str
    """Name of the NumPy dtype."""


Labels: TypeAlias = Array | Sequence[int] | Sequence[str] | ArraySummary
Part: TypeAlias = float | int | tuple[Array | ArraySummary, Labels] | None


@dataclass(frozen=True, eq=False, repr=False)
class Arrays:
    """Images and labels in memory.

    Two of them are equal if their contents are, by SHA-256. A `config.json` holds digests, shapes and class names,
    never the data: a run resumes only with the same data, and a loaded run needs it again to evaluate. Arrays are not
    copied; do not change them afterwards.

    Args:
        images: Images [n, h, w] or [n, h, w, c]: uint8, or floats in [0, 1].
        labels: Integers [n], one-hot rows [n, classes], or strings [n].
        validation: Fraction of `images` that is held out for validation, at random within each class; or a pair
            (images, labels); or None for no validation split.
        test: The same for the test split.
        class_names: The name of each class. By default, the numbers of the classes, or the sorted string labels.
        sample_weight: Weights [n] of `images` in the training loss. They scale the gradient of each image; reported
            losses and metrics are not weighted.
        seed: Seed of the choice of held-out images.

    Raises:
        UserError: If shapes, dtypes or lengths do not fit, images are not finite or not in [0, 1], or labels have gaps.
    """

    images: Array | ArraySummary
    labels: Labels
    validation: Part = None
    test: Part = None
    class_names: tuple[str, ...] | Sequence[str] | None = None
    sample_weight: Array | Sequence[float] | ArraySummary | None = None
    seed: int = 0

    def __post_init__(self):
        require(self.seed >= 0, f"seed={self.seed}: expected at least 0")
        names = None if self.class_names is None else tuple(self.class_names)
        if isinstance(self.images, ArraySummary):
            values = {"class_names": names}
        else:
            images = check_images("images", self.images)
            labels, names = check_labels("labels", self.labels, len(images), names)
            values = {"images": images, "labels": labels, "class_names": names}
            values |= {part: _check_part(part, getattr(self, part), images, names) for part in ("validation", "test")}
            if self.sample_weight is not None:
                values["sample_weight"] = check_weights(self.sample_weight, len(images))
            _split_rows(labels, values["validation"], values["test"], self.seed)
        for name, value in values.items():
            object.__setattr__(self, name, value)
        object.__setattr__(self, "_summary", self._summarize_fields())

    def load(self) -> Splits:
        """Return the splits, the same ones in every call.

        Raises:
            UserError: If this dataset was read from a `config.json`, or its arrays were changed after it was created.
        """
        if isinstance(self.images, ArraySummary):
            raise UserError(
                f"the data of this run is arrays of shape {list(self.images.shape)}, which config.json does not hold; "
                "pass them again, as in jaxclf.load(path, splits=Arrays(images, labels).load())"
            )
        if self._summarize_fields() != self._key:
            raise UserError("the arrays were changed after Arrays(…) was created; create it again, or pass copies")
        images, labels, weights = (cast(np.ndarray, field) for field in (self.images, self.labels, self.sample_weight))
        names, parts = tuple(self.class_names or ()), _split_rows(labels, self.validation, self.test, self.seed)

        def make(name: str, pair: Part) -> Split | None:
            if isinstance(pair, tuple):
                return Split(*cast(tuple[np.ndarray, np.ndarray], pair), names)
            return Split(images[parts[name]], labels[parts[name]], names) if name in parts else None

        # Without a fraction the training images are the user's own array, not a copy.
        rows = parts["train"] if len(parts["train"]) < len(images) else slice(None)
        train = Split(images[rows], labels[rows], names, None if weights is None else weights[rows])
        return Splits(train, make("validation", self.validation), make("test", self.test))

    def get_config_fields(self) -> dict[str, object]:
        """Return the fields with a summary in place of each array, as `config.json` holds them."""
        return dict(zip((field.name for field in fields(self)), self._key, strict=True))

    def _summarize_fields(self) -> tuple[object, ...]:
        return tuple(_summarize(getattr(self, field.name)) for field in fields(self))

    @property
    def _key(self) -> tuple:
        return self.__dict__["_summary"]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Arrays) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return f"Arrays({', '.join(f'{name}={value!r}' for name, value in self.get_config_fields().items())})"


def _summarize(value: object) -> object:
    if isinstance(value, np.ndarray):
        digest = hashlib.sha256(np.ascontiguousarray(value).data).hexdigest()
        return ArraySummary(digest, value.shape, value.dtype.name)
    return tuple(map(_summarize, value)) if isinstance(value, tuple) else value


def _check_part(name: str, part: Part, images: np.ndarray, class_names: tuple[str, ...]) -> Part:
    """Return a validation or test part as a fraction, or as a pair of arrays that fit the training images."""
    if not isinstance(part, tuple):
        fraction = 0.0 if part is None else float(part)
        require(0 <= fraction < 1, f"{name}={part}: expected a fraction below 1, or a pair (images, labels)")
        return fraction or None
    require(len(part) == 2, f"{name} has {len(part)} parts: expected a fraction, or a pair (images, labels)")
    held_out = check_images(f"{name} images", part[0])
    require(
        held_out.shape[1:] == images.shape[1:] and held_out.dtype == images.dtype,
        f"{name} images are {held_out.dtype}{list(held_out.shape[1:])}: "
        f"expected {images.dtype}{list(images.shape[1:])}, as the training images",
    )
    return held_out, check_labels(f"{name} labels", part[1], len(held_out), class_names)[0]


def _split_rows(labels: np.ndarray, validation: Part, test: Part, seed: int) -> dict[str, np.ndarray]:
    """Return the sorted indices of the training images and of those that a fraction holds out, at random by class."""
    fractions = {name: x for name, x in (("test", test), ("validation", validation)) if isinstance(x, float)}
    total = sum(fractions.values())
    require(total < 1, f"validation and test hold out {total:g} of the images: expected less than 1")
    random = np.random.default_rng(seed)
    by_class = np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels))[:-1])
    parts, seen = {name: [] for name in ("train", *fractions)}, 0
    for rows in by_class:
        rest = random.permutation(rows)
        for name, fraction in fractions.items():
            # Rounded over all classes so far: small classes together give the fraction, though none does alone.
            count = round(fraction * (seen + len(rows))) - round(fraction * seen)
            count = min(count, max(len(rest) - 1, 0))  # every class keeps an image to train on
            parts[name].append(rest[:count])
            rest = rest[count:]
        parts["train"].append(rest)
        seen += len(rows)
    merged = {name: np.sort(np.concatenate(rows)) for name, rows in parts.items()}
    for name, fraction in fractions.items():
        require(len(merged[name]) > 0, f"{name}={fraction:g} of {len(labels):,} images holds out none; increase it")
    return merged
