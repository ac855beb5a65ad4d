"""The network and the recipe of configs/cifar10_resnet.py in PyTorch. Needs torch and Pillow, not jaxclf.

    python benchmarks/cifar10_torch.py ROOT SEED [EPOCHS]

ROOT has train/<class>/<image> and test/<class>/<image>. Batches are channels_last. Batch normalization is over groups
of 32 examples, as in the config. The running statistics are updated once per group here and once per step there, and
the momentum accounts for it. Prints the seconds of the steps and the test accuracy as JSON.
"""

import json
import math
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

WIDTH, GROUP, BATCH_SIZE, EPOCHS = 16, 32, 128, 8
PEAK, PEAK_AT, START, FINAL = 0.2, 0.25, 0.04, 4e-6
MEAN = torch.tensor([0.491, 0.482, 0.447]).reshape(3, 1, 1)
STD = torch.tensor([0.247, 0.243, 0.262]).reshape(3, 1, 1)


def read(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images [n, 3, h, w], uint8, and labels [n] of a folder of classes."""
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    files = [(path, label) for label, name in enumerate(classes) for path in sorted(name.iterdir())]
    images = np.stack([np.asarray(Image.open(path).convert("RGB")) for path, _ in files])
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), torch.tensor([label for _, label in files])


class GroupedBatchNorm(nn.BatchNorm2d):
    """Batch normalization of each group of examples."""

    def __init__(self, channels: int, scale: float = 1.0):
        super().__init__(channels, momentum=1 - 0.9 ** (GROUP / BATCH_SIZE))
        nn.init.constant_(self.weight, scale)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalize activations [b, c, h, w]."""
        return torch.cat([super(GroupedBatchNorm, self).forward(part) for part in x.split(GROUP)])


def make_conv(inputs: int, outputs: int, size: int, stride: int = 1, scale: float = 1.0) -> nn.Sequential:
    """Make a convolution with normalization."""
    conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(conv, GroupedBatchNorm(outputs, scale))


class Block(nn.Module):
    """A basic residual block."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.branch = nn.Sequential(
            make_conv(inputs, outputs, 3, stride), nn.ReLU(), make_conv(outputs, outputs, 3, scale=0.0)
        )
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else make_conv(inputs, outputs, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Transform activations [b, c, h, w]."""
        return nn.functional.relu(self.branch(x) + self.shortcut(x))


def build_network() -> nn.Sequential:
    """Build ResNet(depths=(1, 1, 1, 1), width=16, stem="cifar")."""
    widths = [WIDTH * 2**i for i in range(4)]
    blocks = [Block(widths[max(i - 1, 0)], width, 2 if i else 1) for i, width in enumerate(widths)]
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 10)
    model = nn.Sequential(make_conv(3, WIDTH, 3), nn.ReLU(), *blocks, *head)
    nn.init.zeros_(head[-1].bias)
    return model.to(memory_format=torch.channels_last)


def scale(images: torch.Tensor) -> torch.Tensor:
    """Standardize images."""
    return ((images.float() / 255 - MEAN) / STD).contiguous(memory_format=torch.channels_last)


def augment(images: torch.Tensor) -> torch.Tensor:
    """Flip images at random, and crop them at random after padding them with 4 black pixels."""
    n, _, side, _ = images.shape
    padded = nn.functional.pad(images, (4, 4, 4, 4))
    down, right = torch.randint(9, (2, n, 1)) + torch.arange(side)
    flipped = torch.where(torch.rand(n, 1) < 0.5, right, right.flip(1))
    index = torch.arange(n)[:, None, None]
    return padded[index, :, down[:, :, None], flipped[:, None, :]].permute(0, 3, 1, 2)


def compute_rate(step: int, steps: int) -> float:
    """Return the learning rate of a step: one cosine cycle up and down."""
    peak = int(PEAK_AT * steps)
    low, share = (START, step / peak) if step < peak else (FINAL, 1 - (step - peak) / (steps - peak))
    return PEAK * (low + (1 - low) * (1 - math.cos(math.pi * share)) / 2)


def train(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, epochs: int) -> float:
    """Train and return the seconds."""
    kernels = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": kernels, "weight_decay": 5e-4}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=PEAK, momentum=0.9, nesterov=True)
    steps = len(labels) // BATCH_SIZE
    began = time.perf_counter()
    for epoch in range(epochs):
        batches = torch.randperm(len(labels))[: steps * BATCH_SIZE].split(BATCH_SIZE)
        for step, rows in enumerate(batches, start=epoch * steps):
            for group in optimizer.param_groups:
                group["lr"] = compute_rate(step, epochs * steps)
            loss = nn.functional.cross_entropy(model(scale(augment(images[rows]))), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}, {time.perf_counter() - began:.0f} s", file=sys.stderr)
    return time.perf_counter() - began


def main() -> None:
    """Train and evaluate."""
    root, seed = Path(sys.argv[1]), int(sys.argv[2])
    epochs = int(sys.argv[3]) if len(sys.argv) > 3 else EPOCHS
    torch.manual_seed(seed)
    model = build_network()
    seconds = train(model, *read(root / "train"), epochs)
    images, labels = read(root / "test")
    model.eval()
    with torch.no_grad():
        predicted = torch.cat([model(scale(part)).argmax(dim=1) for part in images.split(500)])
    print(json.dumps({"seconds": seconds, "accuracy": float((predicted == labels).float().mean())}))


if __name__ == "__main__":
    main()
