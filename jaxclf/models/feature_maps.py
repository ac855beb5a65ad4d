"""Feature maps and filters of convolutions, and the weights of linear classifiers as images."""

from __future__ import annotations

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax.traverse_util import flatten_dict
from jaxtyping import Float, Num

from jaxclf.models.taps import apply_with_taps, trace_outputs
from jaxclf.types import Array, Variables


def compute_feature_maps(
    model: nn.Module, variables: Variables, images: Num[Array, "b h w c"]
) -> dict[str, np.ndarray]:
    """Compute the outputs of all convolutions of a model.

    Args:
        model: A Linen module.
        variables: Its variables.
        images: Images [b, h, w, c].

    Returns:
        Outputs [b, h', w', filters] by the path of the convolution, in the order in which they run.
    """

    def is_convolution(module: nn.Module) -> bool:
        return isinstance(module, nn.Conv)

    names = trace_outputs(model, variables, images, is_convolution)
    _, outputs = jax.jit(partial(apply_with_taps, model, where=is_convolution))(variables, images)
    return {name: np.asarray(outputs[name][-1]) for name in names}


def get_filters(variables: Variables) -> dict[str, Float[np.ndarray, "k k inputs outputs"]]:
    """Return the kernel [k, k, inputs, outputs] of each convolution by its path."""
    kernels = _get_kernels(variables)
    return {name.removesuffix("/kernel"): kernel for name, kernel in kernels.items() if kernel.ndim == 4}


def get_pixel_weights(
    variables: Variables, image_shape: tuple[int, int, int]
) -> Float[np.ndarray, "h w c classes"] | None:
    """Return the weights of a linear classifier as images [h, w, c, classes]; None for models with other layers."""
    kernels = _get_kernels(variables)
    return kernels["logits/kernel"].reshape(*image_shape, -1) if set(kernels) == {"logits/kernel"} else None


def _get_kernels(variables: Variables) -> dict[str, np.ndarray]:
    flat: dict[str, Any] = flatten_dict(variables["params"], sep="/")
    return {name: np.asarray(value) for name, value in flat.items() if name.endswith("/kernel")}
