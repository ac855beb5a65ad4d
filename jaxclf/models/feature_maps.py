"""What the layers of a network make of an image, and what they have learnt."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax.traverse_util import flatten_dict
from jaxtyping import Float, Num

from jaxclf.types import Array, Variables


def feature_maps(model: nn.Module, variables: Variables, images: Num[Array, "b h w c"]) -> dict[str, np.ndarray]:
    """What each convolution gives for images, [b, h', w', filters] by its name, in the order they run."""
    names: list[str] = []

    @jax.jit
    def maps(variables: Variables, images: Array) -> list[Array]:
        found: dict[str, Array] = {}

        def note(call: Any, arguments: Any, options: Any, context: Any) -> Any:
            result = call(*arguments, **options)
            if isinstance(context.module, nn.Conv) and context.method_name == "__call__":
                found["/".join(context.module.path)] = result
            return result

        with nn.intercept_methods(note):
            model.apply(variables, images, train=False)
        names[:] = found
        return list(found.values())

    return dict(zip(names, jax.device_get(maps(variables, images)), strict=True))


def filters(variables: Variables) -> dict[str, Float[np.ndarray, "k k inputs outputs"]]:
    """The filters of each convolution by its name."""
    kernels = _kernels(variables)
    return {name.removesuffix("/kernel"): kernel for name, kernel in kernels.items() if kernel.ndim == 4}


def pixel_weights(variables: Variables, image_shape: tuple[int, int, int]) -> Float[np.ndarray, "h w c classes"] | None:
    """The weights of a linear classifier by pixel; None where there are other layers than one."""
    kernels = _kernels(variables)
    return kernels["logits/kernel"].reshape(*image_shape, -1) if set(kernels) == {"logits/kernel"} else None


def _kernels(variables: Variables) -> dict[str, np.ndarray]:
    flat: dict[str, Any] = flatten_dict(variables["params"], sep="/")
    return {name: np.asarray(value) for name, value in flat.items() if name.endswith("/kernel")}
