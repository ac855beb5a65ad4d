"""Units of a layer in the place of classes, so that methods explain what a unit responds to."""

from __future__ import annotations

from dataclasses import dataclass

import flax.linen as nn
from jaxtyping import Float, PyTree

from jaxclf.models.taps import apply_with_taps
from jaxclf.saliency.query import Model
from jaxclf.saliency.taps import get_only_output, require_module
from jaxclf.types import Array, Logits


def select_units(model: Model, layer: str) -> LayerUnits:
    """Return a model whose outputs are the units of a layer, for neuron attribution: a target is a unit.

    Any method that needs no layers explains it, such as `IntegratedGradients()(select_units(model, "conv2"),
    variables, images, targets=5)`.

    Args:
        model: A Linen module.
        layer: Path of a module in it, such as "block/conv2", that is called once.

    Returns:
        A function (variables, images) -> outputs of the layer [b, units], flattened in the order of its axes:
        unit (y, x, c) of an output [b, h, w, c] is target (y w + x) c' + c, with c' channels. Equal arguments give
        equal functions, so nothing is compiled twice.

    Raises:
        UserError: If the model is not a Linen module; when it is called, if there is no such layer.
    """
    return LayerUnits(require_module(model), layer)


@dataclass(frozen=True)
class LayerUnits:
    """A model of the units of a layer."""

    model: nn.Module
    layer: str

    def __call__(self, variables: PyTree, images: Float[Array, "b ..."]) -> Logits:
        """Return the outputs of the layer [b, units]."""
        path = self.layer
        _, outputs = apply_with_taps(self.model, variables, images, lambda module: True)
        output = get_only_output(path, outputs, f"choose one of {', '.join(outputs)}")
        return output.reshape(images.shape[0], -1)
