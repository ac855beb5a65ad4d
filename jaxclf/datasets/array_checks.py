"""Validation of images, labels and weights that a user passes as arrays."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from jaxtyping import Float, Int32, Shaped

from jaxclf.errors import UserError, require

NamedLabels: TypeAlias = tuple[Int32[np.ndarray, " n"], tuple[str, ...]]  # with the class names
SLACK = 1.5  # floats above it look like a range of 0 to 255 rather than a rounding error above 1


def check_images(name: str, values: object) -> Shaped[np.ndarray, "n h w c"]:
    """Return images as uint8 or float32 [n, h, w, c]; raise UserError unless they can be trained on."""
    images = values if isinstance(values, np.memmap) else np.asarray(values)  # asarray would hide where they are
    require(images.dtype != object, f"{name} differ in shape: resize them to one height and width")
    require(
        images.ndim in (3, 4) and 0 not in images.shape,
        f"{name} have shape {list(images.shape)}: expected [n, h, w] or [n, h, w, c], none of them 0",
    )
    if images.ndim == 3:
        images = images[..., np.newaxis]
    _, height, width, channels = images.shape
    require(
        not (height in (1, 3) and width == channels > 4),
        f"{name} have shape {list(images.shape)}: channels come last; use images.transpose(0, 2, 3, 1)",
    )
    if images.dtype == np.uint8:
        return images
    if np.issubdtype(images.dtype, np.floating):
        return _check_floats(name, images)
    fits = np.issubdtype(images.dtype, np.integer) and images.min() >= 0 and images.max() <= 255
    fix = "use images.astype(np.uint8)" if fits else "scale them to floats in [0, 1]"
    raise UserError(f"{name} are {images.dtype}: expected uint8, or floats in [0, 1]; {fix}")


def _check_floats(name: str, images: np.ndarray) -> Float[np.ndarray, "n h w c"]:
    low, high = float(images.min()), float(images.max())  # NaN if any value is
    if not np.isfinite([low, high]).all():
        bad = np.flatnonzero(~np.isfinite(images).reshape(len(images), -1).all(axis=1))
        raise UserError(f"{name} have NaN or infinite values in {len(bad):,} images, first in image {bad[0]}")
    fix = "divide them by 255" if low >= 0 and high > SLACK else "scale them, and leave standardization to the model"
    require(0 <= low <= high <= 1, f"{name} are floats from {low:g} to {high:g}: expected [0, 1]; {fix}")
    return images.astype(np.float32, copy=False)


def check_labels(name: str, values: object, count: int, class_names: tuple[str, ...] | None) -> NamedLabels:
    """Return the labels of `count` images as integers, and the class names; raise UserError if they do not fit.

    Labels are integers [n], one-hot rows [n, classes] or strings [n]. Without class names, they define the classes.
    """
    labels = np.asarray(values)
    require(labels.ndim > 0 and len(labels) == count, f"{count:,} images but {name} of shape {list(labels.shape)}")
    if class_names is not None:
        repeated = sorted({each for each in class_names if class_names.count(each) > 1})
        require(not repeated, f"class_names has {', '.join(map(repr, repeated))} more than once")
    if labels.ndim == 2 and labels.shape[1] > 1:
        return _check_one_hot(name, labels, class_names)
    fix = "; use labels.ravel()" if labels.size == count else ""
    require(
        labels.ndim == 1, f"{name} have shape {list(labels.shape)}: expected [n], or one-hot rows [n, classes]{fix}"
    )
    if labels.dtype.kind == "U" or (labels.dtype == object and all(isinstance(label, str) for label in labels)):
        return _check_strings(name, labels.astype(str), class_names)
    fix = "labels.astype(str)" if labels.dtype.kind == "S" else "labels.astype(int)"
    require(
        np.issubdtype(labels.dtype, np.integer),
        f"{name} are {labels.dtype}: expected integers, one-hot rows or strings; use {fix}",
    )
    return _check_integers(name, labels, class_names)


def _check_one_hot(name: str, labels: np.ndarray, class_names: tuple[str, ...] | None) -> NamedLabels:
    wrong = np.flatnonzero(((labels == 1).sum(axis=1) != 1) | ((labels != 0).sum(axis=1) != 1))
    if len(wrong):
        raise UserError(
            f"{name} are not one-hot in {len(wrong):,} rows, first in row {wrong[0]}: expected a single 1 and zeros"
        )
    classes = labels.shape[1]
    class_names = class_names or tuple(map(str, range(classes)))
    require(len(class_names) == classes, f"{name} have {classes} columns but there are {len(class_names)} class names")
    return labels.argmax(axis=1).astype(np.int32), class_names


def _check_strings(name: str, labels: np.ndarray, class_names: tuple[str, ...] | None) -> NamedLabels:
    found, inverse = np.unique(labels, return_inverse=True)
    class_names = class_names or tuple(found.tolist())
    unknown = [label for label in found.tolist() if label not in class_names]
    require(not unknown, f"{name} have {', '.join(map(repr, unknown[:5]))}: expected one of {', '.join(class_names)}")
    return np.array([class_names.index(label) for label in found.tolist()], np.int32)[inverse], class_names


def _check_integers(name: str, labels: np.ndarray, class_names: tuple[str, ...] | None) -> NamedLabels:
    low, high, found = int(labels.min()), int(labels.max()), np.unique(labels)
    if class_names is None and low >= 0 and len(found) <= high:
        missing = int(np.flatnonzero(found != np.arange(len(found)))[0])
        raise UserError(
            f"{name} have gaps: no image has class {missing} of 0 to {high}; number the classes from 0 without gaps, "
            f"or pass class_names for all {high + 1} classes"
        )
    class_names = class_names or tuple(map(str, range(high + 1)))
    require(
        0 <= low <= high < len(class_names),
        f"{name} range from {low} to {high}: expected 0 to {len(class_names) - 1}, one for each class",
    )
    return labels.astype(np.int32), class_names


def check_weights(values: object, count: int) -> Float[np.ndarray, " n"]:
    """Return the sample weights of `count` images as float32; raise UserError if they are negative or not finite."""
    weights = np.asarray(values)
    require(weights.shape == (count,), f"sample_weight has shape {list(weights.shape)}: expected [{count}]")
    require(weights.dtype.kind in "biuf", f"sample_weight is {weights.dtype}: expected floats")
    fine = np.isfinite(weights) & (weights >= 0)
    require(bool(fine.all()), "sample_weight has negative, NaN or infinite values")
    require(bool(weights.any()), "sample_weight is 0 for every image")
    return weights.astype(np.float32)
