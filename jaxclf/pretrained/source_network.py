"""Networks of the libraries that weights come from, where these are installed: what a port is compared with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from operator import attrgetter
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxclf.models import ConvNext, EfficientNetLite, ResNet, Vit
from jaxclf.pretrained.comparison import Answers
from jaxclf.pretrained.networks import Network

CONSTRUCTORS = {
    "torchvision": "models.get_model",
    "timm": "create_model",
    "efficientnet_lite_pytorch": "EfficientNet.from_name",
}
"""For each library, the function in it that makes a network by name, with an argument `num_classes`."""


def describe_library(layout: str) -> str | None:
    """Return the versions of PyTorch and of a library; None if one of them is not installed."""
    if find_spec("torch") is None or find_spec(layout) is None:
        return None
    return f"torch {version('torch')}, {layout} {version(layout)}"


class SourceNetwork:
    """The network of a library, with its weights. `describe_library` says whether the library is installed.

    Args:
        layout: The library.
        network: The network.
        model: Our model of it.
        arrays: The weights by the names of the library.
    """

    def __init__(self, layout: str, network: Network, model: nn.Module, arrays: Mapping[str, np.ndarray]):
        torch = import_module("torch")
        self.normalize = network.normalize
        self.stages = list_stages(layout, model)
        self._outputs: dict[str, Any] = {}
        self._module: Any = _build_module(layout, network, model.classes).eval()
        self._module.load_state_dict(
            {name: torch.tensor(_convert_narrow_floats(array)) for name, array in arrays.items()}
        )
        for ours, theirs in self.stages.items():
            self._module.get_submodule(theirs).register_forward_hook(self._make_hook(ours))

    def _make_hook(self, name: str) -> Callable[[Any, Any, Any], None]:
        """Return a function that keeps the output of a stage."""

        def keep(module: Any, inputs: Any, output: Any) -> None:
            self._outputs[name] = output.detach().movedim(1, -1) if output.ndim == 4 else output.detach()

        return keep

    def compute_answers(
        self, images: Float[np.ndarray, "b h w 3"], targets: Int[np.ndarray, " b"] | None = None
    ) -> Answers:
        """Compute what the network answers, in the type of the images.

        Args:
            images: Images [b, h, w, 3] in [0, 1], float32 or float64.
            targets: The class of each image whose logit is differentiated; None: the most probable one.
        """
        torch = import_module("torch")
        module = self._module.to(getattr(torch, images.dtype.name))
        pixels = torch.tensor(images, requires_grad=True)
        mean, std = (torch.tensor(each, dtype=pixels.dtype) for each in (self.normalize.mean, self.normalize.std))
        logits = module(((pixels - mean) / std).permute(0, 3, 1, 2))
        chosen = logits.argmax(1) if targets is None else torch.tensor(targets)
        logits[torch.arange(len(images)), chosen].sum().backward()
        outputs = {name: output.numpy() for name, output in self._outputs.items()}
        return Answers(logits.detach().numpy(), pixels.grad.numpy(), outputs)


def _convert_narrow_floats(array: np.ndarray) -> np.ndarray:
    """Return floats of less than 32 bits as float32, which is exact: PyTorch takes no bfloat16 or float8 of NumPy."""
    is_narrow = jnp.issubdtype(array.dtype, jnp.floating) and array.dtype.itemsize < 4
    return np.asarray(array, np.float32 if is_narrow else None)


def _build_module(layout: str, network: Network, classes: int) -> Any:
    """Return the network of a library with random weights."""
    function = attrgetter(CONSTRUCTORS[layout])(import_module(layout))
    return function(name_in_library(layout, network), num_classes=classes)


def name_in_library(layout: str, network: Network) -> str:
    """Return the name that a library has for a published network, such as "convnext_tiny"."""
    size = str(network.size)
    word = {"Ti/16": "tiny", "S/16": "small", "B/16": "base", "T": "tiny", "S": "small", "B": "base"}.get(size, size)
    if network.family is ResNet:
        return f"resnet{size}"
    if network.family is ConvNext:
        return f"convnext_{word}"
    if network.family is Vit:
        return f"vit_{word}_patch16_224"
    return f"efficientnet-lite{size}" if layout == "efficientnet_lite_pytorch" else f"tf_efficientnet_lite{size}"


def format_constructor(layout: str, network: Network, classes: int) -> str:
    """Return the Python expression that makes a published network of a library, once the library is imported."""
    return f'{layout}.{CONSTRUCTORS[layout]}("{name_in_library(layout, network)}", num_classes={classes})'


def list_stages(layout: str, model: Any) -> dict[str, str]:
    """Return the modules of a library whose outputs are compared, by the paths of our layers: the ends of stages."""
    if hasattr(model, "depth"):
        return {f"block{i}": f"blocks.{i - 1}" for i in range(1, model.depth + 1)}
    ends = {f"stage{i}_block{depth}": (i, sum(model.depths[:i])) for i, depth in enumerate(model.depths, start=1)}
    if layout == "efficientnet_lite_pytorch":
        return {path: f"_blocks.{count - 1}" for path, (_, count) in ends.items()}
    if layout == "torchvision":
        return {
            path: f"layer{i}" if isinstance(model, ResNet) else f"features.{2 * i - 1}" for path, (i, _) in ends.items()
        }
    return {
        path: f"{'blocks' if isinstance(model, EfficientNetLite) else 'stages'}.{i - 1}"
        for path, (i, _) in ends.items()
    }
