"""A score split between the pixels and the biases of the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxclf.saliency.attribution import Attribution
from jaxclf.saliency.base import BaseMethod
from jaxclf.saliency.methods.relu import is_own_relu
from jaxclf.saliency.query import Query, complete
from jaxclf.types import Array
from jaxclf.xla.interpreter import Carried, Interpreter, body_of, bound, is_carried


@dataclass(frozen=True)
class FullGrad(BaseMethod):
    """The gradient times the pixels, and the gradients times the biases, each spread over the pixels below it.

    The values sum to the logit or the margin of networks of linear layers, ReLUs and max-pooling, with a baseline
    score of 0; of other networks, and of probabilities, delta is what is missing. A bias is whatever is added that
    does not depend on the image, such as those of functions and of BatchNorm in inference, or a bound of a clipped
    ReLU. What it owes to a place of a feature map goes to the pixels there, to their channels equally; what it owes
    to features without places, to all pixels equally.
    S. Srinivas, F. Fleuret, "Full-gradient representation for neural network visualization" (2019), arXiv:1905.00780:
    signed, without the rescaling of its pictures.
    """

    def explain(self, query: Query) -> Attribution:
        """One pass forward and one backward."""

        def logits(image, ones):
            scaled = Scaled(ones)
            return scaled.own(scaled.run(query.logits, Dependent(image[None]))).value[0]

        # Biases are multiplied by maps of ones. The gradient by those is what biases give, at its place. The program is
        # that of one image, so that whatever the order of its axes an array belongs to this image alone.
        point = query.images, jnp.ones_like(query.images)
        query, score, (by_pixels, by_ones), _ = query.differentiate(lambda x: (jax.vmap(logits)(*x), None), point)
        return complete(query, query.images[:, None] * by_pixels + by_ones, score, 0.0, evaluations=1)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Dependent(Carried):
    """An array that depends on the image."""


class Scaled(Interpreter):
    """Multiplies the biases of a program for one image [1, ...] by a map of ones, shaped like the image.

    They are the operands that do not depend on the image of operations that are of degree one in all of them.
    """

    elementwise = ("add", "add_any", "sub", "max", "min", "select_n")

    def __init__(self, ones: Float[Array, ...]):
        self.ones = ones

    def lifted(self, value: Any) -> Dependent:
        """A bias: what a loop begins with, or what another branch gives."""
        return Dependent(self._scaled(value, value.shape))

    def operation(self, eqn: Any, arguments: list[Any]) -> Any:
        """The operation, with its biases multiplied by ones."""
        name, shape = eqn.primitive.name, eqn.outvars[0].aval.shape
        if is_own_relu(eqn, ("relu6",)):  # its cap is a bias
            return self.evaluate(body_of(eqn), arguments)
        if name in self.elementwise:
            arguments = [x if is_carried(x) else self._scaled(x, shape) for x in arguments]
        elif name == "concatenate":
            arguments = [x if is_carried(x) else self._scaled(x, x.shape) for x in arguments]
        outputs = bound(eqn, arguments)
        return [Dependent(x) for x in outputs] if eqn.primitive.multiple_results else Dependent(outputs)

    def _scaled(self, bias: Any, shape: tuple[int, ...]) -> Any:
        if not jnp.issubdtype(bias.dtype, jnp.floating):
            return bias
        ones = spread(self.ones, shape).astype(bias.dtype)
        # Not a product: the -inf of a maximum over nothing would make the gradient by the ones NaN.
        return bias + jnp.where(jnp.isfinite(bias), bias, 0) * (ones - 1)


def spread(ones: Float[Array, ...], shape: tuple[int, ...]) -> Float[Array, ...]:
    """Means of a map [h, w, c] over channels and the pixels under each place of features [1, h', w', k]; or over all.

    Of axes that do not go evenly, each place takes the parts of pixels under it.
    """
    *sides, _ = ones.shape
    if not sides or len(shape) != ones.ndim + 1:
        return ones.mean().reshape((1,) * len(shape))
    means = ones.mean(axis=-1)
    for axis, (side, places) in enumerate(zip(sides, shape[1:-1], strict=True)):
        means = jnp.moveaxis(jnp.tensordot(jnp.asarray(shares(places, side), means.dtype), means, (1, axis)), 0, axis)
    return means[None, ..., None]


def shares(places: int, pixels: int) -> np.ndarray:
    """What each of equal places along a line has of each pixel, [places, pixels]; rows sum to 1."""
    start, stop = (np.arange(places)[:, None] + np.array([0, 1])).T[:, :, None] * pixels / places
    pixel = np.arange(pixels)
    overlap = np.minimum(stop, pixel + 1) - np.maximum(start, pixel)
    return np.maximum(overlap, 0) * places / pixels
