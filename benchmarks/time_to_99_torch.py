"""Worker of time_to_accuracy.py: train one epoch of a known fast recipe for MNIST in PyTorch. Needs torch, not jaxclf.

    python benchmarks/time_to_99_torch.py {contiguous,channels_last} SEED

Network: conv 5x5 24, pool, conv 3x3 32, pool, 256, 10. Adam with a one-cycle learning rate up to 0.01 and betas 0.7 and
0.9; batches of 256 images from a uint8 tensor. Prints the seconds of the 235 steps and the test accuracy as JSON.
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
    """Return images [n, 1, 28, 28], uint8, and labels [n] of the bundled files."""
    images, labels = bundled_mnist.read(part)
    tensors = images.transpose(0, 3, 1, 2).copy(), labels.astype(np.int64)
    return tuple(torch.from_numpy(array).to(DEVICE) for array in tensors)


def build_network(layout: str) -> nn.Sequential:
    """Build the network of the recipe."""
    layers = (
        nn.Conv2d(1, 24, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(24, 32, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(800, 256), nn.ReLU(), nn.Linear(256, 10),
    )  # fmt: skip
    return nn.Sequential(*layers).to(DEVICE, memory_format=get_memory_format(layout))


def get_memory_format(layout: str) -> torch.memory_format:
    """Return the memory format of a layout."""
    return torch.channels_last if layout == "channels_last" else torch.contiguous_format


def scale(images: torch.Tensor, layout: str) -> torch.Tensor:
    """Standardize images to mean 0 and standard deviation 1."""
    return ((images.float() / 255 - 0.1307) / 0.3081).contiguous(memory_format=get_memory_format(layout))


def train(model: nn.Sequential, images: torch.Tensor, labels: torch.Tensor, layout: str) -> float:
    """Train one epoch and return the seconds."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, betas=(0.7, 0.9), fused=True)
    batches = torch.randperm(len(labels), device=DEVICE).split(BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=len(batches))
    began = time.perf_counter()
    for rows in batches:
        loss = nn.functional.cross_entropy(model(scale(images[rows], layout)), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    float(loss)  # waits for the GPU
    return time.perf_counter() - began


def main() -> None:
    """Warm up with a few steps of another network, then train and evaluate."""
    layout, seed = sys.argv[1], int(sys.argv[2])
    images, labels = read("train")
    train(build_network(layout), images[: 20 * BATCH_SIZE], labels[: 20 * BATCH_SIZE], layout)
    torch.manual_seed(seed)
    model = build_network(layout)
    seconds = train(model, images, labels, layout)
    test_images, test_labels = read("t10k")
    with torch.no_grad():
        right = model(scale(test_images, layout)).argmax(dim=1) == test_labels
    print(json.dumps({"seconds": seconds, "accuracy": float(right.float().mean())}))


if __name__ == "__main__":
    main()
