"""FullGrad: gradients with respect to the pixels and to the biases of a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import JaxprEqn
from jaxtyping import Float

from jaxclf.saliency.base import BaseMethod
from jaxclf.saliency.methods.primitives import Operands, get_output
from jaxclf.saliency.methods.relu import is_custom_relu
from jaxclf.saliency.query import Attribution, Query, make_complete_attribution
from jaxclf.types import Array
from jaxclf.xla.interpreter import Interpreter, Traced, bind, get_body, is_traced


@dataclass(frozen=True)
class FullGrad(BaseMethod):
    """FullGrad: the gradient times the pixels, plus the bias gradients times the biases, mapped to the pixels.

    For networks of linear layers, ReLUs and max pooling the values sum to the logit, or the margin, with a baseline
    score of 0; for other networks and for probabilities, `delta` is the rest. A bias is every additive term that does
    not depend on the image, such as those of functions and of BatchNorm in inference, or the bound of a clipped ReLU.
    The contribution of a bias at a place of a feature map is divided between the pixels under that place, equally over
    channels; that of features without spatial axes, between all pixels.

    Use it to see contributions of biases that other gradient methods leave out.
    S. Srinivas, F. Fleuret, "Full-gradient representation for neural network visualization" (2019), arXiv:1905.00780:
    with signs, and without the rescaling of the paper's pictures.
    """

    def explain(self, query: Query) -> Attribution:
        """Explain a query with one forward and one backward pass."""

        def logits(image, ones):
            scaler = BiasScaler(ones)
            return scaler.convert(scaler.run(query.compute_logits, Dependent(image[None]))).value[0]

        # Biases are multiplied by maps of ones, so the gradient with respect to the ones is the biases' contribution,
        # at its place. The model is traced for one image: then all of an array belongs to this image, whatever the
        # order of its axes.
        point = query.images, jnp.ones_like(query.images)
        query, score, (by_pixels, by_ones), _ = query.differentiate(lambda x: (jax.vmap(logits)(*x), None), point)
        return make_complete_attribution(query, query.images[:, None] * by_pixels + by_ones, score, 0.0, evaluations=1)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Dependent(Traced):
    """An array that depends on the image."""


class BiasScaler(Interpreter):
    """Multiplies the biases of a program for one image [1, ...] by a map of ones shaped like the image.

    Biases are the operands that do not depend on the image, of operations that are homogeneous of degree 1 in all
    operands together.
    """

    elementwise = ("add", "add_any", "sub", "max", "min", "select_n")

    def __init__(self, ones: Float[Array, ...]):
        """Multiply biases by `ones`, of the shape of an image."""
        self.ones = ones

    def lift(self, value: Any) -> Dependent:
        """Return an array as a bias: the initial value of a loop, or the output of another branch."""
        return Dependent(self._scale_bias(value, value.shape))

    def process_primitive(self, eqn: JaxprEqn, arguments: Operands) -> Any:
        """Evaluate an equation with its biases multiplied by ones."""
        name, shape = eqn.primitive.name, get_output(eqn).shape
        if is_custom_relu(eqn, ("relu6",)):  # its bound is a bias
            return self.evaluate(get_body(eqn), arguments)
        if name in self.elementwise:
            arguments = [x if is_traced(x) else self._scale_bias(x, shape) for x in arguments]
        elif name == "concatenate":
            arguments = [x if is_traced(x) else self._scale_bias(x, x.shape) for x in arguments]
        outputs = bind(eqn, arguments)
        return [Dependent(x) for x in outputs] if eqn.primitive.multiple_results else Dependent(outputs)

    def _scale_bias(self, bias: Any, shape: tuple[int, ...]) -> Any:
        if not jnp.issubdtype(bias.dtype, jnp.floating):
            return bias
        ones = _average_ones(self.ones, shape).astype(bias.dtype)
        # Not a product: the -inf of an empty maximum would make the gradient with respect to the ones NaN.
        return bias + jnp.where(jnp.isfinite(bias), bias, 0) * (ones - 1)


def _average_ones(ones: Float[Array, ...], shape: tuple[int, ...]) -> Float[Array, ...]:
    """Average a map [h, w, c] over channels and over the pixels under each place of features [1, h', w', k].

    A pixel on the border of two places counts in parts. For features without spatial axes, average all of the map.
    """
    *sides, _ = ones.shape
    if not sides or len(shape) != ones.ndim + 1:
        return ones.mean().reshape((1,) * len(shape))
    means = ones.mean(axis=-1)
    for axis, (side, places) in enumerate(zip(sides, shape[1:-1], strict=True)):
        overlaps = jnp.asarray(compute_overlaps(places, side), means.dtype)
        means = jnp.moveaxis(jnp.tensordot(overlaps, means, (1, axis)), 0, axis)
    return means[None, ..., None]


def compute_overlaps(places: int, pixels: int) -> Float[np.ndarray, "places pixels"]:
    """Return the weight of each pixel of a line in each of `places` equal parts of the line; rows sum to 1."""
    start, stop = (np.arange(places)[:, None] + np.array([0, 1])).T[:, :, None] * pixels / places
    pixel = np.arange(pixels)
    overlap = np.minimum(stop, pixel + 1) - np.maximum(start, pixel)
    return np.maximum(overlap, 0) * places / pixels
