"""PyTorch's side of time_to_99.py: one epoch of a known quick recipe for MNIST. It needs torch, not jaxclf.

    python benchmarks/time_to_99_torch.py SEED {contiguous,channels_last}

Convolutions 5x5 24 and 3x3 32, each pooled, 256, 10; Adam with a one-cycle learning rate up to 0.01 and momenta 0.7 and
0.9; batches of 256 rows of a uint8 tensor. Prints the seconds of its 235 steps and the test accuracy, as JSON.
"""

import json
import sys
import time

import bundled_mnist
import numpy as np
import torch
from torch import nn

BATCH_SIZE = 256
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def read(part: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images [n, 1, 28, 28], uint8, and labels [n] of the bundled files."""
    images, labels = bundled_mnist.read(part)
    tensors = images.transpose(0, 3, 1, 2).copy(), labels.astype(np.int64)
    return tuple(torch.from_numpy(array).to(DEVICE) for array in tensors)


def network(layout: str) -> nn.Sequential:
    """The network of the recipe."""
    layers = (
        nn.Conv2d(1, 24, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(24, 32, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(800, 256), nn.ReLU(), nn.Linear(256, 10),
    )  # fmt: skip
    return nn.Sequential(*layers).to(DEVICE, memory_format=memory_format(layout))


def memory_format(layout: str) -> torch.memory_format:
    """The order of the axes in memory."""
    return torch.channels_last if layout == "channels_last" else torch.contiguous_format


def scaled(images: torch.Tensor, layout: str) -> torch.Tensor:
    """Images as the network takes them: mean 0, standard deviation 1."""
    return ((images.float() / 255 - 0.1307) / 0.3081).contiguous(memory_format=memory_format(layout))


def train(model: nn.Sequential, images: torch.Tensor, labels: torch.Tensor, layout: str) -> float:
    """One epoch; the seconds it took."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, betas=(0.7, 0.9), fused=True)
    batches = torch.randperm(len(labels), device=DEVICE).split(BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=len(batches))
    began = time.perf_counter()
    for rows in batches:
        loss = nn.functional.cross_entropy(model(scaled(images[rows], layout)), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    float(loss)  # a GPU is done only then
    return time.perf_counter() - began


def main() -> None:
    """Warm up on a few steps of another network, train, evaluate."""
    seed, layout = int(sys.argv[1]), sys.argv[2]
    images, labels = read("train")
    train(network(layout), images[: 20 * BATCH_SIZE], labels[: 20 * BATCH_SIZE], layout)
    torch.manual_seed(seed)
    model = network(layout)
    seconds = train(model, images, labels, layout)
    test_images, test_labels = read("t10k")
    with torch.no_grad():
        right = model(scaled(test_images, layout)).argmax(dim=1) == test_labels
    print(json.dumps({"seconds": seconds, "accuracy": float(right.float().mean())}))


if __name__ == "__main__":
    main()
