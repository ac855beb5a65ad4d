"""Gradients with other backward passes through ReLUs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from jaxclf.saliency.attribution import Attribution
from jaxclf.saliency.base import BaseMethod
from jaxclf.saliency.methods.relu import Relu, with_relus
from jaxclf.saliency.query import Query, attribution


@jax.custom_vjp
def guided(x):
    """A ReLU that passes back what is positive, where its input is."""
    return jax.nn.relu(x)


guided.defvjp(
    lambda x: (jax.nn.relu(x), x > 0),
    lambda positive, gradients: (jnp.where(positive, jax.nn.relu(gradients), 0),),
)


@jax.custom_vjp
def deconvolved(x):
    """A ReLU that passes back what is positive, whatever its input is."""
    return jax.nn.relu(x)


deconvolved.defvjp(lambda x: (jax.nn.relu(x), None), lambda _, gradients: (jax.nn.relu(gradients),))


@dataclass(frozen=True)
class GuidedBackprop(BaseMethod):
    """The gradient, with what is negative left out at every ReLU on the way back.

    Raises UserError for a model without ReLUs (`jax.nn.relu`, a maximum with 0), and where one stands in a body that
    cannot be rewritten, such as a while loop or a function with a derivative of its own.
    J. T. Springenberg et al., "Striving for simplicity: the all convolutional net" (2014), arXiv:1412.6806.
    """

    def explain(self, query: Query) -> Attribution:
        """One pass forward and one backward."""
        return explained(query, guided)


@dataclass(frozen=True)
class Deconvnet(BaseMethod):
    """The gradient, with ReLUs that on the way back are ReLUs of the gradient alone.

    Raises UserError as GuidedBackprop does.
    M. D. Zeiler, R. Fergus, "Visualizing and understanding convolutional networks" (2013), arXiv:1311.2901.
    """

    def explain(self, query: Query) -> Attribution:
        """One pass forward and one backward."""
        return explained(query, deconvolved)


def explained(query: Query, relu: Relu) -> Attribution:
    """The gradients of a model with another ReLU."""
    query, score, gradients = query.replace(rewrite=partial(with_relus, relu=relu)).settled_with_gradients()
    return attribution(query, gradients, score, evaluations=1)
