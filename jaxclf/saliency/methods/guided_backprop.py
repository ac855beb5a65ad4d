"""Guided backpropagation and deconvnets: gradients with modified ReLUs."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxclf.saliency.base import BaseMethod
from jaxclf.saliency.methods.relu import Relu, replace_relus
from jaxclf.saliency.query import Attribution, Query, make_attribution


@jax.custom_vjp
def apply_guided_relu(x):
    """Apply a ReLU that passes back only positive gradients, and only where its input is positive."""
    return jax.nn.relu(x)


apply_guided_relu.defvjp(
    lambda x: (jax.nn.relu(x), x > 0),
    lambda positive, gradients: (jnp.where(positive, jax.nn.relu(gradients), 0),),
)


@jax.custom_vjp
def apply_deconvnet_relu(x):
    """Apply a ReLU that passes back only positive gradients, whatever its input."""
    return jax.nn.relu(x)


apply_deconvnet_relu.defvjp(lambda x: (jax.nn.relu(x), None), lambda _, gradients: (jax.nn.relu(gradients),))


@dataclass(frozen=True)
class GuidedBackprop(BaseMethod):
    """Guided backpropagation: the gradient, where every ReLU passes back only positive gradients.

    Its maps are sharp but depend little on the class; `parameter_randomization` shows it. Raises UserError for a model
    without ReLUs (`jax.nn.relu`, or a maximum with 0), and if a ReLU is in a body that cannot be rewritten, such as a
    while loop or a function with custom derivatives.
    J. T. Springenberg et al., "Striving for simplicity: the all convolutional net" (2014), arXiv:1412.6806.
    """

    def explain(self, query: Query) -> Attribution:
        """Explain a query with one forward and one backward pass."""
        return _explain_with_relu(query, apply_guided_relu)


@dataclass(frozen=True)
class Deconvnet(BaseMethod):
    """The gradient of a deconvolutional network: every ReLU passes back positive gradients, whatever its input.

    Raises UserError like GuidedBackprop.
    M. D. Zeiler, R. Fergus, "Visualizing and understanding convolutional networks" (2013), arXiv:1311.2901.
    """

    def explain(self, query: Query) -> Attribution:
        """Explain a query with one forward and one backward pass."""
        return _explain_with_relu(query, apply_deconvnet_relu)


def _explain_with_relu(query: Query, relu: Relu) -> Attribution:
    """Explain a query by the gradients of the model with another ReLU."""
    # ReLUs are replaced before other rewriting, which would hide those of variances and be taken for some itself.
    rewritten = query.replace(rewrite=lambda function: query.rewrite(replace_relus(function, relu)))
    query, score, gradients = rewritten.resolve_with_gradients()
    return make_attribution(query, gradients, score, evaluations=1)
