"""Calls of a model for training and for evaluation, whatever arguments and random streams it takes."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, Protocol, cast, runtime_checkable

import flax.linen as nn
import jax
from flax.errors import InvalidRngError
from jaxtyping import Key

from jaxclf.types import Array, Variables


@runtime_checkable
class InitializedFromImages(Protocol):
    """The protocol of models some of whose variables are computed from training images before training."""

    def initialize_from_images(self, variables: Variables, images: Array) -> Variables:
        """Return variables that suit some images.

        Args:
            variables: The variables of the model, drawn at random.
            images: Some training images [n, h, w, c], integers from 0 to 255 or floats in [0, 1], as in evaluation.
        """
        ...


def get_mode(model: nn.Module, train: bool) -> dict[str, Any]:
    """Return the argument that tells a model whether it is trained: `train`, `deterministic`, or none."""
    parameters = _list_parameters(type(model))
    if "train" in parameters:
        return {"train": train}
    return {"deterministic": not train} if "deterministic" in parameters else {}


@lru_cache
def _list_parameters(cls: type[nn.Module]) -> frozenset[str]:
    call = getattr(cls, "__call__", None)  # noqa: B004 - its signature is wanted
    return frozenset(inspect.signature(call).parameters) if call else frozenset()


def initialize_model(model: nn.Module, key: Key[jax.Array, ""], images: Array) -> tuple[Any, Variables]:
    """Initialize a model for images, as in evaluation; return the logits and the variables."""
    logits, variables = model.init_with_output(key, images, **get_mode(model, False))
    return logits, cast(Variables, variables)


def infer_shapes(model: nn.Module, images: Any) -> tuple[Any, Variables]:
    """Return the shapes and dtypes of the logits and the variables of a model for images or their shape."""
    return jax.eval_shape(partial(initialize_model, model), jax.random.key(0), images)


def apply_to_train(
    model: nn.Module,
    variables: Variables,
    images: Array,
    make_key: Callable[[str], Key[jax.Array, ""]],
    mutable: Sequence[str],
) -> tuple[Any, Variables]:
    """Apply a model as in training.

    Args:
        model: A Linen module.
        variables: Its variables.
        images: Images [b, h, w, c].
        make_key: Maps the name of a random stream of the model to its key.
        mutable: The collections that the call may change.

    Returns:
        The logits, and the changed collections.
    """
    streams = ["dropout"]
    while True:  # Linen does not list the streams of a module: a call names the first one that is missing
        try:
            keys = {name: make_key(name) for name in streams}
            logits, changed = model.apply(variables, images, **get_mode(model, True), rngs=keys, mutable=list(mutable))
            return logits, cast(Variables, changed)
        except InvalidRngError as error:
            missing = re.search(r"PRNG for \"(\w+)\"", str(error))
            if missing is None or missing[1] in streams:
                raise
            streams.append(missing[1])
