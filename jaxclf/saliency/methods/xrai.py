"""Integrated gradients gathered over regions of the image, on the host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Bool, Float, Int, Key, Num, UInt32

from jaxclf.errors import UserError, require
from jaxclf.saliency.attribution import Attribution
from jaxclf.saliency.base import BaseMethod
from jaxclf.saliency.methods.integrated_gradients import IntegratedGradients
from jaxclf.saliency.query import Query
from jaxclf.types import Array, unit_range

# The authors' numbers for images of 224 pixels, as shares of an image's area, side and area.
SEGMENT = 150 / 224**2  # least area of a segment before it is widened
WIDER = 5 / 224  # by how much it then reaches over its edges
REGION = 50 / 224**2  # least area that it must add to become a region


@dataclass(frozen=True)
class Xrai(BaseMethod):
    """Integrated gradients, from black and from white, averaged over regions of the image: [b, h, w, 1].

    The image is cut into segments of several scales. The one with the most attribution a pixel becomes a region, then
    the one with the most on the pixels that are left, and so on; each pixel has its region's mean. A pixel's
    attribution is that of its largest channel. Where a baseline is given, it is the only one.

    It runs on the host: under jit, and inside `all_classes` or another wrapper, it raises UserError. Segments come from
    scikit-image: `pip install 'jaxclf[xrai]'`.

    A. Kapishnikov et al., "XRAI: better attributions through regions" (2019), arXiv:1906.02825.
    """

    steps: int = 100
    """Gradients an example and baseline."""
    scales: tuple[float, ...] = (50.0, 100.0, 150.0, 250.0, 500.0, 1200.0)
    """Of Felzenszwalb's segments; larger ones make larger segments."""
    side: int = 224
    """Pixels of a side of the enlarged image that is cut into segments: their scales depend on it."""

    host = True

    def __post_init__(self):
        IntegratedGradients(self.steps)
        require(len(self.scales) > 0, "scales=(): expected at least one")
        require(self.side >= 2, f"side={self.side}: expected at least 2")

    def explain(self, query: Query) -> Attribution:
        """Raises UserError: it is what a compiled program would call."""
        raise UserError("Xrai works on the host: call it by itself, outside jit, all_classes and other wrappers")

    def __call__(
        self,
        model: Any,
        variables: Any,
        images: Num[Array, "b ..."],
        targets: Int[Array, ...] | int | None = None,
        *,
        key: Key[Array, ...] | UInt32[Array, ...] | None = None,
        baseline: Num[Array, ...] | float | None = None,
    ) -> Attribution:
        """As for every method, for images [b, h, w, c]; raises UserError under jit, and without scikit-image."""
        if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((variables, images, targets, baseline))):
            return super().__call__(model, variables, images, targets, key=key, baseline=baseline)
        require(images.ndim == 4, f"images of shape {list(images.shape)}: expected [b, h, w, c], which has regions")
        skimage = _scikit_image()
        method = IntegratedGradients(self.steps, score=self.score, max_rows=self.max_rows)
        answers = [
            method(model, variables, images, targets, key=key, baseline=start)
            for start in ((0.0, 1.0) if baseline is None else (baseline,))
        ]
        pixels = np.mean([answer.values for answer in answers], axis=0, dtype=np.float64).max(axis=-1)
        values = []
        for image, attribution in zip(np.asarray(unit_range(images), np.float64), pixels, strict=True):
            masks = segments(skimage, image, self.scales, self.side)
            values.append(over_regions(attribution, regions(attribution, masks)))
        values = jnp.asarray(np.stack(values)[..., None], jnp.float32)
        return answers[0]._replace(values=values, delta=None, evaluations=sum(a.evaluations for a in answers))


def segments(
    skimage: Any, image: Float[np.ndarray, "h w c"], scales: tuple[float, ...], side: int
) -> Bool[np.ndarray, "segments h w"]:
    """Felzenszwalb's segments of each scale, which overlap as they are widened."""
    shape = image.shape[:2]
    image = np.nan_to_num(image, posinf=0, neginf=0)
    low, high = image.min(), image.max()
    image = 2 * (image - low) / (high - low if high > low else 1) - 1
    image = skimage.transform.resize(image, (side, side), order=3, mode="edge")
    least = max(1, round(SEGMENT * side**2))
    radius = round(WIDER * max(shape))
    masks = []
    for scale in scales:
        labels = skimage.segmentation.felzenszwalb(image, scale=scale, sigma=0.8, min_size=least)
        labels = skimage.transform.resize(labels, shape, order=0, preserve_range=True, anti_aliasing=False)
        masks += [skimage.morphology.isotropic_dilation(labels == label, radius) for label in np.unique(labels)]
    return np.stack(masks)


def regions(
    attribution: Float[np.ndarray, "h w"], masks: Bool[np.ndarray, "segments h w"]
) -> list[Bool[np.ndarray, "h w"]]:
    """The image in disjoint regions: what the segment with the most attribution a pixel adds, again and again."""
    left, flat = np.ones(attribution.size, bool), masks.reshape(len(masks), -1)
    area, total = flat.sum(axis=1), flat @ attribution.ravel()
    least = max(1, REGION * attribution.size)
    found = []
    while (area >= least).any():
        density = np.where(area >= least, total / np.maximum(area, 1), -np.inf)
        new = flat[density.argmax()] & left
        found.append(new)
        left &= ~new
        area -= flat[:, new].sum(axis=1)
        total -= flat[:, new] @ attribution.ravel()[new]
    return [region.reshape(attribution.shape) for region in [*found, left] if region.any()]


def over_regions(
    attribution: Float[np.ndarray, "h w"], parts: list[Bool[np.ndarray, "h w"]]
) -> Float[np.ndarray, "h w"]:
    """The mean of each part on its pixels."""
    values = np.empty_like(attribution)
    for part in parts:
        values[part] = attribution[part].mean()
    return values


def _scikit_image() -> Any:
    """Imported where it is needed: an extra."""
    try:
        import skimage
    except ImportError:
        raise UserError("Xrai cuts images into segments with scikit-image: pip install 'jaxclf[xrai]'") from None
    return skimage
