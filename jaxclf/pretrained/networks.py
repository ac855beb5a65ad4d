"""Published networks by name, with the preprocessing that their weights were trained with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import flax.linen as nn

from jaxclf.errors import UserError
from jaxclf.models import ConvNext, EfficientNetLite, Normalize, ResNet, Vit
from jaxclf.models.normalize import IMAGENET

INCEPTION = Normalize(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
TORCHVISION_CONVNEXT = {"T": 236, "S": 230, "B": 232}  # shorter side before the crop
FREE_FIELDS = (
    "classes", "normalize", "dtype", "remat", "kernel_init", "dropout", "attention_dropout", "drop_path",
    "batch_norm_group",
)  # fmt: skip
"""Fields in which a published network may differ: they change no layer, or only the last one."""
LITE = Normalize(mean=(127 / 255, 127 / 255, 127 / 255), std=(128 / 255, 128 / 255, 128 / 255))


@dataclass(frozen=True)
class Network:
    """A published network, and how images are prepared for it."""

    family: Any
    """Class of the model."""
    size: int | str
    """Its name in the family, for `named`."""
    side: int
    """Height and width of the images it sees, in pixels."""
    resize: int
    """Length of the shorter side of a photograph before this square is cropped from its center, in pixels."""
    interpolation: Literal["bilinear", "bicubic"]
    """Interpolation of the resizing."""
    normalize: Normalize
    """Normalization of the pixels in [0, 1]."""

    def make_model(self, classes: int) -> nn.Module:
        """Return the model, with the normalization that its weights expect."""
        return self.family.named(self.size, classes, normalize=self.normalize)


def _list_networks() -> dict[str, Network]:
    """Return all networks by name.

    Crops are those of published weights: of torchvision (V1), of timm for `Vit` (augreg) and the small ConvNexts, and
    of TensorFlow for `EfficientNetLite`.
    """
    networks = {f"resnet{n}": Network(ResNet, n, side, 256, "bilinear", IMAGENET) for n, side in ResNet.names.items()}
    for name, side in Vit.names.items():
        networks[f"vit-{name.replace('/', '').lower()}"] = Network(Vit, name, side, 248, "bicubic", INCEPTION)
    for name, side in ConvNext.names.items():
        resize = TORCHVISION_CONVNEXT.get(name)  # the small ones are of timm
        interpolation = "bilinear" if resize else "bicubic"
        networks[f"convnext-{name.lower()}"] = Network(ConvNext, name, side, resize or 256, interpolation, IMAGENET)
    for n, side in EfficientNetLite.names.items():
        networks[f"efficientnet-lite{n}"] = Network(EfficientNetLite, n, side, side + 32, "bicubic", LITE)
    return networks


NETWORKS: Mapping[str, Network] = _list_networks()


def match_network(model: nn.Module) -> str | None:
    """Return the name of the published network that has the layers of a model, whatever the number of its classes.

    Args:
        model: The model.

    Returns:
        Its name in `NETWORKS`; None if the model is none of them.
    """
    for name, network in NETWORKS.items():
        if type(model) is network.family:
            fields = {field: getattr(model, field) for field in FREE_FIELDS if hasattr(model, field)}
            if model == network.family.named(network.size, **fields):
                return name
    return None


def find_network(name: str) -> Network:
    """Return a published network by name, such as "resnet50"; raise UserError if there is none."""
    if name not in NETWORKS:
        raise UserError(f"there is no network {name!r}; expected one of {', '.join(NETWORKS)}")
    return NETWORKS[name]
