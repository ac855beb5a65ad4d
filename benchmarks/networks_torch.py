"""The networks of `networks.py` in PyTorch, with timm and captum: replies to requests, lines of JSON, with seconds."""

import json
import sys
import time
from collections.abc import Callable
from functools import cache, partial

import timm
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's convention
from captum.attr import IntegratedGradients
from torch import nn

LAYOUTS = {"PyTorch": torch.contiguous_format, "channels last": torch.channels_last}


class Block(nn.Module):
    """A basic residual block."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
        self.conv2, self.norm2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        self.shortcut = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the output of the block."""
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


def build_resnet18() -> nn.Module:
    """Return ResNet-18 of width 32 with a stem for small images."""
    layers, inputs = [nn.Conv2d(3, 32, 3, 1, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU()], 32
    for stage in range(4):
        for stride in (2 if stage else 1, 1):
            layers.append(Block(inputs, 32 * 2**stage, stride))
            inputs = 32 * 2**stage
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 10))


def build_small_vit() -> nn.Module:
    """Return a vision transformer of width 192 with six blocks for images of 32 x 32."""
    sizes = {"img_size": 32, "patch_size": 4, "embed_dim": 192, "depth": 6, "num_heads": 3, "num_classes": 10}
    return timm.create_model("vit_tiny_patch16_224", **sizes)


MODELS = {
    "EfficientNet-Lite0, forward": partial(timm.create_model, "tf_efficientnet_lite0"),
    "EfficientNet-Lite0, gradient by the pixels": partial(timm.create_model, "tf_efficientnet_lite0"),
    "EfficientNet-Lite0, training": partial(timm.create_model, "tf_efficientnet_lite0", num_classes=10),
    "ResNet-50, forward": partial(timm.create_model, "resnet50"),
    "ResNet-50, gradient by the pixels": partial(timm.create_model, "resnet50"),
    "ResNet-18 of width 32, training": build_resnet18,
    "ViT of width 192, training": build_small_vit,
    "ViT-Ti/16, forward": partial(timm.create_model, "vit_tiny_patch16_224"),
    "ViT-Ti/16, gradient by the pixels": partial(timm.create_model, "vit_tiny_patch16_224"),
    "ViT-Ti/16, integrated gradients of 50 steps": partial(timm.create_model, "vit_tiny_patch16_224"),
}


@cache
def build(name: str, layout: str, batch: int, side: int, kind: str) -> Callable[[], object]:
    """Return a call of a row of the table."""
    model = MODELS[name]().to(memory_format=LAYOUTS[layout])
    images = torch.rand(batch, 3, side, side).to(memory_format=LAYOUTS[layout])
    if kind == "training":
        return build_training(model.train(), images)
    model.eval().requires_grad_(False)

    def differentiate() -> torch.Tensor:
        x = images.detach().requires_grad_()
        return torch.autograd.grad(model(x)[:, 0].sum(), x)[0]

    def evaluate() -> torch.Tensor:
        with torch.inference_mode():
            return model(images)

    if kind == "path":
        return partial(IntegratedGradients(model).attribute, images, target=0, n_steps=50)
    return differentiate if kind == "pixels" else evaluate


def build_training(model: nn.Module, images: torch.Tensor) -> Callable[[], object]:
    """Return a call of a training step."""
    optimizer = torch.optim.SGD(model.parameters(), 0.01, 0.9, nesterov=True)
    labels = torch.arange(len(images)) % 10

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()

    return step


def main() -> None:
    """Reply to requests until the end of the input."""
    for line in sys.stdin:
        call = build(*json.loads(line))
        began = time.perf_counter()
        call()
        print(json.dumps(time.perf_counter() - began), flush=True)


if __name__ == "__main__":
    main()
