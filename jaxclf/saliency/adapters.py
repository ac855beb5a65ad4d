"""Adapters for models of Flax NNX, Equinox, Haiku and Keras 3: a hashable function of variables and images.

Each adapter returns the model and its variables, in the form in which every method and metric takes them. The
frameworks are not imported until an adapter is called.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, PyTree

from jaxclf.errors import require
from jaxclf.types import Array, Logits


@dataclass(frozen=True)
class AdaptedModel:
    """A function (variables, images) -> logits. Two of equal structure are equal, so they share compiled programs."""

    apply: Callable[[Any, PyTree, Array], Logits]
    """Maps the structure, the variables and the images to logits."""
    structure: Any
    """What the framework keeps beside the arrays of a model."""

    def __call__(self, variables: PyTree, images: Float[Array, "b ..."]) -> Logits:
        """Return the logits [b, classes] of images [b, ...]."""
        return self.apply(self.structure, variables, images)


def adapt_nnx(module: Any) -> tuple[AdaptedModel, PyTree]:
    """Adapt a Flax NNX module.

    Args:
        module: A `flax.nnx.Module` that maps images [b, h, w, c] to logits. It stays unchanged; a copy in evaluation
            mode, as by `module.eval()`, is explained.

    Returns:
        The model and its variables.
    """
    from flax import nnx

    copy = nnx.clone(module)
    copy.eval()
    graph, variables = nnx.split(copy)
    return AdaptedModel(_apply_nnx, graph), variables


def _apply_nnx(graph: Any, variables: PyTree, images: Array) -> Logits:
    from flax import nnx

    return nnx.merge(graph, variables)(images)


def _map_images(module: Any, images: Array) -> Logits:
    return jax.vmap(module)(images)


def adapt_equinox(module: Any, apply: Callable[[Any, Array], Logits] = _map_images) -> tuple[AdaptedModel, PyTree]:
    """Adapt an Equinox module.

    Args:
        module: An `equinox.Module`, or a tree of modules and states. It is explained as `eqx.nn.inference_mode` has it.
        apply: Maps the module and images [b, h, w, c] to logits [b, classes]; by default `jax.vmap(module)(images)`.
            Equinox's convolutions need `lambda module, x: jax.vmap(module)(x.transpose(0, 3, 1, 2))`.

    Returns:
        The model and its variables.
    """
    import equinox as eqx  # pyright: ignore[reportMissingImports] - an extra

    variables, structure = eqx.partition(eqx.nn.inference_mode(module), lambda x: isinstance(x, jax.Array | np.ndarray))
    leaves, tree = jax.tree.flatten(structure)  # a module with a list in a field is not hashable
    return AdaptedModel(_apply_equinox, (tree, tuple(leaves), apply)), variables


def _apply_equinox(structure: tuple[Any, tuple, Callable], variables: PyTree, images: Array) -> Logits:
    import equinox as eqx  # pyright: ignore[reportMissingImports] - an extra

    tree, leaves, apply = structure
    return apply(eqx.combine(variables, jax.tree.unflatten(tree, leaves)), images)


def adapt_haiku(transformed: Any, params: PyTree, state: PyTree = None) -> tuple[AdaptedModel, PyTree]:
    """Adapt a Haiku function.

    Args:
        transformed: The result of `hk.transform` or `hk.transform_with_state`, with or without `hk.without_apply_rng`,
            of a function of images alone, such as `lambda images: Net()(images, is_training=False)`.
        params: Its parameters.
        state: Its state, for `hk.transform_with_state`.

    Returns:
        The model and its variables.
    """
    return AdaptedModel(_apply_haiku, transformed), (params, state)


def _apply_haiku(transformed: Any, variables: tuple[PyTree, PyTree], images: Array) -> Logits:
    parameters = inspect.signature(transformed.apply).parameters
    given = dict(zip(("params", "state"), variables, strict=True), rng=None)
    outputs = transformed.apply(*(given[name] for name in given if name in parameters), images)
    return outputs[0] if "state" in parameters else outputs


def adapt_keras(model: Any) -> tuple[AdaptedModel, PyTree]:
    """Adapt a Keras 3 model on the JAX backend.

    Args:
        model: A built `keras.Model` whose last layer has no activation, so that it gives logits.

    Returns:
        The model and its variables: those to train, and the others.

    Raises:
        UserError: If the backend of Keras is not JAX.
    """
    import keras

    backend = keras.backend.backend()
    require(backend == "jax", f'the backend of Keras is {backend}: set KERAS_BACKEND="jax" before keras is imported')
    groups = model.trainable_variables, model.non_trainable_variables
    return AdaptedModel(_apply_keras, model), tuple([variable.value for variable in group] for group in groups)


def _apply_keras(model: Any, variables: PyTree, images: Array) -> Logits:
    return model.stateless_call(*variables, images, training=False)[0]
