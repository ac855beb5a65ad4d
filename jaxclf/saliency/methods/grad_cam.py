"""Class-activation maps: the channels of a layer, weighted by the gradients of the score and added up."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxclf.errors import require
from jaxclf.saliency.attribution import Attribution
from jaxclf.saliency.base import BaseMethod
from jaxclf.saliency.query import Query, attribution
from jaxclf.saliency.taps import spatial_layer, with_layer
from jaxclf.types import Array

Upsampling = Literal["nearest", "bilinear"]
Activation = Float[Array, "b 1 h w c"]
Gradients = Float[Array, "b heads h w c"]
Weights = Float[Array, "b heads #h #w c"]
"""Of the channels, the same everywhere or one for each place."""
Map = Float[Array, "b heads h2 w2 1"]


@dataclass(frozen=True)
class ActivationMap(BaseMethod):
    """What all of them share. Values are [b, h, w, 1] in raw units: no map is scaled to a range.

    Raises UserError for a layer that is not there, is called more than once or does not put out [b, h, w, c],
    for a model that is no Linen module, and where there is no height and width to upsample to.
    """

    layer: str | None = None
    """Path of the module whose output is looked at, such as "block/conv2"; None is the last one with [b, h, w, c]."""
    relu: bool = True
    """Whether what speaks against the class is cut to 0."""
    upsample: Upsampling | None = None
    """How the map is brought to the height and width of the image; None leaves it at those of the layer."""

    def added_up(self, query: Query, weights: Weights, activation: Activation) -> Map:
        """The map, of one channel, made of weighted ones."""
        maps = (weights * activation).sum(axis=-1, keepdims=True)
        maps = jax.nn.relu(maps) if self.relu else maps
        return upsampled(maps, query.images, self.upsample) if self.upsample else maps


def upsampled(
    maps: Float[Array, "b heads h w c"], images: Float[Array, "b ..."], how: Upsampling
) -> Float[Array, "b heads h2 w2 c"]:
    """Maps at the height and width of images [b, h, w, c]; "nearest" repeats pixels where these are multiples."""
    shape = list(images.shape)
    require(len(shape) == 4, f"images of shape {shape} have no height and width to upsample to: give [b, h, w, c]")
    return jax.image.resize(maps, (*maps.shape[:2], *shape[1:3], maps.shape[4]), how)


@dataclass(frozen=True)
class GradientMap(ActivationMap):
    """A map whose weights are made of the gradients of the score by the layer's output."""

    @abstractmethod
    def weights(self, activation: Activation, gradients: Gradients) -> Weights:
        """What each channel counts for."""

    def explain(self, query: Query) -> Attribution:
        """One pass forward, and one backward as far as the layer."""
        layer = spatial_layer(query, self.layer)
        run = partial(with_layer(query, layer), query.images)
        query, score, gradients, activation = query.differentiate(run, layer.unchanged())
        activation = activation[:, None].astype(jnp.float32)
        weights = self.weights(activation, gradients.astype(jnp.float32))
        return attribution(query, self.added_up(query, weights, activation), score, evaluations=1)


@dataclass(frozen=True)
class GradCam(GradientMap):
    """Each channel is weighted by its mean gradient.

    R. R. Selvaraju et al., "Grad-CAM" (2017), arXiv:1610.02391.
    """

    def weights(self, activation: Activation, gradients: Gradients) -> Weights:
        """Means over places."""
        return gradients.mean(axis=(2, 3), keepdims=True)


@dataclass(frozen=True)
class HiResCam(GradientMap):
    """Each channel is weighted by its gradient, place by place.

    Where only linear layers follow, and without ReLU, the values sum to the logit less their biases.
    R. L. Draelos, L. Carin, "Use HiResCAM instead of Grad-CAM" (2020), arXiv:2011.08891.
    """

    def weights(self, activation: Activation, gradients: Gradients) -> Weights:
        """The gradients."""
        return gradients


@dataclass(frozen=True)
class LayerCam(GradientMap):
    """Each channel is weighted by its gradient, place by place, where that is positive.

    P.-T. Jiang et al., "LayerCAM", IEEE Transactions on Image Processing 30 (2021).
    """

    def weights(self, activation: Activation, gradients: Gradients) -> Weights:
        """Positive gradients."""
        return jax.nn.relu(gradients)


@dataclass(frozen=True)
class GradCamPlusPlus(GradientMap):
    """Each channel is weighted by a sum of its positive gradients in which weak ones count for more.

    They are those of the score S, not of the paper's exp(S): that is one factor common to a whole map.
    A. Chattopadhyay et al., "Grad-CAM++" (2018), arXiv:1710.11063, equation 19.
    """

    def weights(self, activation: Activation, gradients: Gradients) -> Weights:
        """Sums over places."""
        # Equation 19, g^2 / (2 g^2 + g^3 sum(A)), with g^2 divided out: small gradients would underflow. That of an
        # activation that is nowhere negative is at least 2; of others it can be 0, and then says nothing.
        denominator = 2 + gradients * activation.sum(axis=(2, 3), keepdims=True)
        shares = jnp.where(denominator == 0, 0, 1 / jnp.where(denominator == 0, 1, denominator))
        return (shares * jax.nn.relu(gradients)).sum(axis=(2, 3), keepdims=True)
