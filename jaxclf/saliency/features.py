"""Features that methods remove as a whole: regions of the image, such as superpixels, given by integer labels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, Num, Shaped

from jaxclf.errors import UserError, require
from jaxclf.saliency.checks import has_tracer
from jaxclf.saliency.pixels import broadcast_to_channels, get_spatial_shape
from jaxclf.types import Array, to_unit_range


@partial(jax.tree_util.register_dataclass, data_fields=("labels",), meta_fields=("count",))
@dataclass(frozen=True, eq=False)
class Features:
    """The regions of each image. An image need not have all of them."""

    labels: Any
    """[b, ...] the number of the region of each pixel, from 0."""
    count: int
    """The number of regions."""

    def select(self, chosen: Bool[Array, "b count"], images: Float[Array, "b ..."]) -> Bool[Array, "b ..."]:
        """Return a mask, like the images, of the pixels of the chosen regions."""
        return broadcast_to_channels(self._look_up(chosen), images)

    def share(
        self, values: Float[Array, "b targets count"], images: Float[Array, "b ..."]
    ) -> Float[Array, "b targets ..."]:
        """Return values [b, targets, ...] of pixels, like the images, that share the value of their region."""
        b, channels = images.shape[0], prod(images.shape[1:]) // prod(get_spatial_shape(images))
        sizes = jax.vmap(partial(jnp.bincount, length=self.count))(self.labels.reshape(b, -1)) * channels
        return self.repeat(values / jnp.maximum(sizes, 1)[:, None], images)

    def repeat(
        self, values: Float[Array, "b targets count"], images: Float[Array, "b ..."]
    ) -> Float[Array, "b targets ..."]:
        """Return values [b, targets, ...] of pixels, like the images, each the value of its region."""
        pixels = jax.vmap(self._look_up, in_axes=1, out_axes=1)(values)
        return broadcast_to_channels(pixels, images)

    def _look_up(self, table: Shaped[Array, "b count"]) -> Shaped[Array, "b ..."]:
        flat = self.labels.reshape(self.labels.shape[0], -1)
        return jnp.take_along_axis(table, flat, axis=1).reshape(self.labels.shape)


def make_features(labels: Int[Array, ...], images: Num[Array, "b ..."]) -> Features:
    """Return the features of images from labels [...] for all of them, or [b, ...], with one integer per pixel.

    Raises UserError if shapes do not fit, and under jit if the labels are traced, because their number is static.
    """
    shape = (images.shape[0], *get_spatial_shape(images))
    require(labels.shape in (shape, shape[1:]), f"features of shape {list(labels.shape)}: expected {list(shape)}")
    if has_tracer(labels):
        raise UserError(
            "features are an argument of a function under jit, and the number of features has to be known there: "
            "make them a constant, with functools.partial(method, features=...)"
        )
    rows = jax.device_get(labels).reshape(-1, *shape[1:])
    # Numbered for each image by itself, so that its samples do not depend on the other images.
    numbers = np.stack([np.unique(row, return_inverse=True)[1].reshape(shape[1:]) for row in rows])
    numbers = np.broadcast_to(numbers, shape)
    return Features(jax.device_put(numbers.astype(np.int32)), int(numbers.max()) + 1)


def divide_into_cells(images: Float[Array, "b ..."], cells: int) -> Features:
    """Return features that are the cells of a grid with at most `cells` cells along each spatial axis."""
    sizes = get_spatial_shape(images)
    labels = np.zeros((), np.int32)
    for size in sizes:
        number = min(cells, size)
        labels = labels[..., None] * number + np.arange(size, dtype=np.int32) * number // size
    return Features(jnp.broadcast_to(labels, (images.shape[0], *sizes)), prod(min(cells, size) for size in sizes))


def segment_images(images: Num[Array, "b h w c"], count: int = 50) -> Int[np.ndarray, "b h w"]:
    """Divide images into superpixels: regions of similar colors, by SLIC of scikit-image.

    R. Achanta et al., "SLIC superpixels compared to state-of-the-art superpixel methods" (2012), IEEE Transactions on
    Pattern Analysis and Machine Intelligence 34.

    Args:
        images: Images [b, h, w, 1] or [b, h, w, 3], integers in 0..255 or floats in [0, 1].
        count: The approximate number of superpixels of an image.

    Returns:
        The number of the superpixel of each pixel, from 0 in each image: the argument `features` of methods.

    Raises:
        UserError: If images are not gray or color, or scikit-image is not installed.
    """
    require(images.shape[-1] in (1, 3), f"images of shape {list(images.shape)}: expected 1 or 3 channels")
    require(count >= 1, f"count={count}: expected at least 1")
    slic = import_scikit_image("segment_images").segmentation.slic
    colors = np.broadcast_to(np.asarray(to_unit_range(images), np.float32), (*images.shape[:3], 3))
    return np.stack([slic(image, n_segments=count, start_label=0) for image in colors]).astype(np.int32)


def import_scikit_image(user: str) -> Any:
    """Import scikit-image, an optional dependency; raise UserError with the name of its user if it is missing."""
    try:
        import skimage
    except ImportError:
        raise UserError(f"{user} needs scikit-image to segment images: pip install 'jaxclf[xrai]'") from None
    return skimage
