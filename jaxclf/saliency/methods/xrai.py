"""XRAI: integrated gradients averaged over regions of the image, computed on the host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, Key, Num, UInt32

from jaxclf.errors import UserError, require
from jaxclf.saliency.base import BaseMethod, Targets
from jaxclf.saliency.checks import has_tracer
from jaxclf.saliency.features import import_scikit_image
from jaxclf.saliency.methods.integrated_gradients import IntegratedGradients
from jaxclf.saliency.query import Attribution, Query
from jaxclf.types import Array, to_unit_range

# The values of the paper's code for images of 224 x 224 pixels, relative to area, side and area of an image.
SEGMENT = 150 / 224**2  # smallest area of a segment before dilation
WIDER = 5 / 224  # radius of the dilation of segments
REGION = 50 / 224**2  # smallest area that a segment must add to become a region


@dataclass(frozen=True)
class Xrai(BaseMethod):
    """XRAI: integrated gradients averaged over regions of the image. Values are [b, h, w, 1].

    Integrated gradients from a black and from a white baseline are averaged, with the largest channel of each pixel;
    a given baseline takes the place of both. The image is divided into overlapping segments of several scales. The
    segment with the highest mean attribution becomes a region, then the one with the highest mean on the remaining
    pixels, and so on; each pixel has the mean of its region. Use it for maps of objects rather than pixels.

    It runs on the host: under jit, and inside `all_classes` or another wrapper, it raises UserError. Segmentation needs
    scikit-image: `pip install 'jaxclf[xrai]'`.

    A. Kapishnikov et al., "XRAI: better attributions through regions" (2019), arXiv:1906.02825.
    """

    steps: int = 100
    """Number of gradients per example and baseline."""
    scales: tuple[float, ...] = (50.0, 100.0, 150.0, 250.0, 500.0, 1200.0)
    """Scales of Felzenszwalb's segmentation; larger scales give larger segments."""
    side: int = 224
    """Height and width in pixels of the resized image that is segmented, to which `scales` refer."""

    gradient_based = False
    host = True

    def __post_init__(self):
        IntegratedGradients(self.steps)
        require(len(self.scales) > 0, "scales=(): expected at least one")
        require(self.side >= 2, f"side={self.side}: expected at least 2")

    def explain(self, query: Query) -> Attribution:
        """Raise UserError: this is called only inside a compiled program, where XRAI cannot run."""
        raise UserError("Xrai works on the host: call it by itself, outside jit, all_classes and other wrappers")

    def __call__(
        self,
        model: Any,
        variables: Any,
        images: Num[Array, "b ..."],
        targets: Targets = None,
        *,
        key: Key[Array, ...] | UInt32[Array, ...] | None = None,
        baseline: Num[Array, ...] | float | None = None,
        features: Int[Array, ...] | None = None,
    ) -> Attribution:
        """Explain scores of a model at images [b, h, w, c]; see `Method.__call__` for arguments and result.

        Raises:
            UserError: Under jit, for images of another rank, or if scikit-image is not installed.
        """
        if has_tracer(variables, images, targets, baseline) or features is not None:
            return super().__call__(model, variables, images, targets, key=key, baseline=baseline, features=features)
        require(images.ndim == 4, f"images of shape {list(images.shape)}: expected [b, h, w, c]")
        skimage = import_scikit_image("Xrai")
        method = IntegratedGradients(self.steps, score=self.score, max_rows=self.max_rows)
        attributions = [
            method(model, variables, images, targets, key=key, baseline=start)
            for start in ((0.0, 1.0) if baseline is None else (baseline,))
        ]
        pixels = np.mean([a.values for a in attributions], axis=0, dtype=np.float64).max(axis=-1)
        values = []
        for image, attribution in zip(np.asarray(to_unit_range(images), np.float64), pixels, strict=True):
            masks = segment_image(skimage, image, self.scales, self.side)
            values.append(average_regions(attribution, select_regions(attribution, masks)))
        values = jnp.asarray(np.stack(values)[..., None], jnp.float32)
        return attributions[0]._replace(values=values, delta=None, evaluations=sum(a.evaluations for a in attributions))


def segment_image(
    skimage: Any, image: Float[np.ndarray, "h w c"], scales: tuple[float, ...], side: int
) -> Bool[np.ndarray, "segments h w"]:
    """Return masks of Felzenszwalb's segments at each scale. They overlap, because they are dilated."""
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


def select_regions(
    attribution: Float[np.ndarray, "h w"], masks: Bool[np.ndarray, "segments h w"]
) -> list[Bool[np.ndarray, "h w"]]:
    """Divide the image into disjoint regions, greedily by the mean attribution of the pixels that a segment adds."""
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


def average_regions(
    attribution: Float[np.ndarray, "h w"], parts: list[Bool[np.ndarray, "h w"]]
) -> Float[np.ndarray, "h w"]:
    """Return a map with the mean of each region at its pixels."""
    values = np.empty_like(attribution)
    for part in parts:
        values[part] = attribution[part].mean()
    return values
