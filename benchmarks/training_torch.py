"""Worker of training.py: train with PyTorch, eager in either memory layout or compiled. Needs torch, not jaxclf.

    python benchmarks/training_torch.py FOLDER {contiguous,channels_last,compiled}

Batches are gathered by index from a uint8 tensor, optimizers are fused, running loss and accuracy are tensors that are
read once per epoch. On a GPU all of them are in its memory, and CUDA graphs are used if they are faster. Replies as
described in training_worker.py.
"""

import itertools
import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn
from training_worker import Task, Train, Turns, find_fastest, read_task

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
OPTIMIZERS = {"Adam": torch.optim.Adam, "Sgd": torch.optim.SGD}


def build_network(task: Task) -> nn.Sequential:
    """Build the network for images [b, c, h, w]."""
    layers: list[nn.Module] = []
    height, width, channels = task.image_shape
    for filters in task.convolutions:
        layers += [nn.Conv2d(channels, filters, task.kernel_size, padding="same"), nn.ReLU(), nn.MaxPool2d(2)]
        height, width, channels = height // 2, width // 2, filters
    layers.append(nn.Flatten())
    sizes = (height * width * channels, *task.dense, task.classes)
    for before, after in itertools.pairwise(sizes):
        dropout = [nn.Dropout(task.dropout)] if task.dropout else []
        layers += [*dropout, nn.Linear(before, after), nn.ReLU()]
    model = nn.Sequential(*layers[:-1])  # no ReLU after the logits
    assert sum(parameter.numel() for parameter in model.parameters()) == task.parameters
    return model


def build(task: Task, images: np.ndarray, labels: np.ndarray, layout: str, mode: str | None) -> Train:
    """Return a function that trains a slice; `mode` is that of torch.compile, None for eager mode."""
    channels_last = layout == "channels_last"
    memory_format = getattr(torch, "channels_last" if channels_last else "contiguous_format")
    model = build_network(task).to(DEVICE, memory_format=memory_format)
    optimizer = OPTIMIZERS[task.optimizer](model.parameters(), lr=task.learning_rate, fused=True)
    pixels = torch.from_numpy(images if channels_last else images.transpose(0, 3, 1, 2).copy()).to(DEVICE)
    targets = torch.from_numpy(labels.astype(np.int64)).to(DEVICE)

    def forward(pixels: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = model((pixels.permute(0, 3, 1, 2) if channels_last else pixels).float() / 255)
        return nn.functional.cross_entropy(logits, targets), (logits.argmax(dim=1) == targets).sum()

    run = torch.compile(forward, mode=mode) if mode else forward

    def epoch() -> tuple[float, float]:
        losses, right = torch.zeros((), device=DEVICE), torch.zeros((), dtype=torch.int64, device=DEVICE)
        batches = torch.randperm(len(targets), device=DEVICE).split(task.batch_size)
        for rows in batches:
            loss, more = run(pixels[rows], targets[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses += loss.detach()
            right += more
        return float(losses) / len(batches), int(right) / len(targets)

    return lambda: [epoch() for _ in range(task.epochs)][-1][0]


def main() -> None:
    """Train until the end of the requests."""
    turns, variant = Turns(), sys.argv[2]
    task, images, labels = read_task(Path(sys.argv[1]))
    layouts, modes = [variant], [None]
    if variant == "compiled":
        layouts = ["contiguous", "channels_last"] if task.convolutions else ["contiguous"]
        modes = ["default", "reduce-overhead"] if DEVICE.type == "cuda" else ["default"]
    builds = {
        f"{layout}, {mode or 'eager'}": partial(build, task, images, labels, layout, mode)
        for layout, mode in itertools.product(layouts, modes)
    }
    setting, train = find_fastest(builds)
    device = torch.cuda.get_device_name() if DEVICE.type == "cuda" else f"{torch.get_num_threads()} threads"
    about = f"torch {torch.__version__}, {device}, {setting}"
    while True:
        turns.end(train(), about)


if __name__ == "__main__":
    main()
