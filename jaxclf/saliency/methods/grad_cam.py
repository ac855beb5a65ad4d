"""Class activation maps: weighted sums over the channels of a layer, with weights from gradients of the score."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxclf.errors import require
from jaxclf.saliency.base import BaseMethod
from jaxclf.saliency.query import Attribution, Query, make_attribution
from jaxclf.saliency.taps import find_spatial_layer, tap_layers
from jaxclf.types import Array

Upsampling = Literal["nearest", "bilinear"]
Activation = Float[Array, "b 1 h w c"]
Gradients = Float[Array, "b targets h w c"]
Weights = Float[Array, "b targets #h #w c"]
"""Weights of the channels, the same everywhere or one for each place."""
Map = Float[Array, "b targets h2 w2 1"]


@dataclass(frozen=True)
class ActivationMap(BaseMethod):
    """Base class of class activation maps. Values are [b, h, w, 1] of the layer's size, and are not normalized.

    The output of the layer is [b, h, w, c], or tokens [b, n, c] of a vision transformer: patches row by row, with the
    aspect of the image, after up to five others (class token, distillation token, registers), which are left out.

    Raises UserError if the layer does not exist, is called more than once or has another output, if tokens can be
    several grids, if the model is not a Linen module, and if images to upsample to are not [b, h, w, c].
    """

    layer: str | None = None
    """Path of the module whose output is used, such as "block/conv2"; None: the last with output [b, h, w, c], or where
    attention follows it the last with tokens before the last attention. In a vision transformer that is the layer
    normalization before it. Later layers have no gradients at the patches if a class token is pooled."""
    relu: bool = True
    """Set negative values, evidence against the class, to 0."""
    upsample: Upsampling | None = None
    """Interpolation with which the map is resized to the images; None: the map keeps the size of the layer."""

    def combine_channels(self, query: Query, weights: Weights, activation: Activation) -> Map:
        """Return the weighted sum over channels, rectified and upsampled according to the fields."""
        maps = (weights * activation).sum(axis=-1, keepdims=True)
        maps = jax.nn.relu(maps) if self.relu else maps
        return upsample_maps(maps, query.images, self.upsample) if self.upsample else maps


def upsample_maps(
    maps: Float[Array, "b targets h w c"], images: Float[Array, "b ..."], how: Upsampling
) -> Float[Array, "b targets h2 w2 c"]:
    """Resize maps to the height and width of images [b, h, w, c]; raise UserError for images of another rank."""
    shape = list(images.shape)
    require(len(shape) == 4, f"images of shape {shape} have no height and width to upsample to: expected [b, h, w, c]")
    return jax.image.resize(maps, (*maps.shape[:2], *shape[1:3], maps.shape[4]), how)


@dataclass(frozen=True)
class GradientMap(ActivationMap):
    """Base class of maps whose weights are a function of the gradients of the score with respect to the layer."""

    @abstractmethod
    def compute_weights(self, activation: Activation, gradients: Gradients) -> Weights:
        """Return the weights of the channels."""

    def explain(self, query: Query) -> Attribution:
        """Explain a query with one forward pass and one backward pass to the layer."""
        layer = find_spatial_layer(query, self.layer)
        run = partial(tap_layers(query), query.images)
        query, score, gradients, outputs = query.differentiate(run, layer.make_zeros())
        activation = layer.to_map(outputs[layer.path].astype(jnp.float32))[:, None]
        weights = self.compute_weights(activation, layer.to_map(gradients[layer.path].astype(jnp.float32)))
        return make_attribution(query, self.combine_channels(query, weights, activation), score, evaluations=1)


@dataclass(frozen=True)
class GradCam(GradientMap):
    """Grad-CAM: each channel is weighted by its mean gradient.

    A coarse map that localizes the evidence for a class.
    R. R. Selvaraju et al., "Grad-CAM" (2017), arXiv:1610.02391.
    """

    def compute_weights(self, activation: Activation, gradients: Gradients) -> Weights:
        """Return the means of the gradients over height and width."""
        return gradients.mean(axis=(2, 3), keepdims=True)


@dataclass(frozen=True)
class HiResCam(GradientMap):
    """HiResCAM: each channel is weighted by its gradient, place by place.

    If only linear layers follow the layer, and with `relu=False`, the values sum to the logit minus its bias terms.
    R. L. Draelos, L. Carin, "Use HiResCAM instead of Grad-CAM" (2020), arXiv:2011.08891.
    """

    def compute_weights(self, activation: Activation, gradients: Gradients) -> Weights:
        """Return the gradients."""
        return gradients


@dataclass(frozen=True)
class LayerCam(GradientMap):
    """LayerCAM: each channel is weighted by its positive gradients, place by place.

    It gives usable maps for early layers too, which have a finer resolution.
    P.-T. Jiang et al., "LayerCAM", IEEE Transactions on Image Processing 30 (2021).
    """

    def compute_weights(self, activation: Activation, gradients: Gradients) -> Weights:
        """Return the gradients with negative ones set to 0."""
        return jax.nn.relu(gradients)


@dataclass(frozen=True)
class GradCamPlusPlus(GradientMap):
    """Grad-CAM++: each channel is weighted by a sum of its positive gradients in which weak ones count more.

    Gradients are those of the score S, not of exp(S) as in the paper, which differ by one factor for a whole map.
    A. Chattopadhyay et al., "Grad-CAM++" (2018), arXiv:1710.11063, equation 19.
    """

    def compute_weights(self, activation: Activation, gradients: Gradients) -> Weights:
        """Return the weighted sums of positive gradients over height and width."""
        # Equation 19 is g^2 / (2 g^2 + g^3 sum(A)); g^2 is canceled because squares of small gradients underflow. The
        # denominator is at least 2 for nonnegative activations; for others it can be 0, and such places do not count.
        denominator = 2 + gradients * activation.sum(axis=(2, 3), keepdims=True)
        shares = jnp.where(denominator == 0, 0, 1 / jnp.where(denominator == 0, 1, denominator))
        return (shares * jax.nn.relu(gradients)).sum(axis=(2, 3), keepdims=True)
