"""The network and recipe of airbench94 with Muon in PyTorch: K. Jordan (2024), arXiv:2404.00498. Needs torch, Pillow.

    python benchmarks/airbench_torch.py ROOT SEED --epochs 8 --width 0.5

ROOT has train/<class>/<image> and test/<class>/<image>. Batches are channels_last. Prints the seconds of the
steps, and the test accuracy with and without test-time augmentation as JSON.
"""

import argparse
import itertools
import json
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's convention
from cifar10_torch import read
from torch import nn

BATCH_SIZE, PADDING, SMOOTHING = 2000, 2, 0.2
MUON_RATE, MUON_MOMENTUM, SGD_MOMENTUM = 0.24, 0.6, 0.85
BIAS_RATE, HEAD_RATE, DECAY, WHITEN_EPOCHS = 0.053, 0.67, 2e-6 * BATCH_SIZE, 3
MEAN = torch.tensor([0.4914, 0.4822, 0.4465]).reshape(3, 1, 1)
STD = torch.tensor([0.2470, 0.2435, 0.2616]).reshape(3, 1, 1)


class Conv(nn.Conv2d):
    """A 3 x 3 convolution that begins as the identity."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs, 3, padding="same", bias=False)
        nn.init.dirac_(self.weight.data[:inputs])


class Norm(nn.BatchNorm2d):
    """Batch normalization with a bias and a short average."""

    def __init__(self, channels: int):
        super().__init__(channels, eps=1e-12, momentum=0.4)
        self.weight.requires_grad = False


class Network(nn.Module):
    """Whitening, three groups of two convolutions, and a linear layer."""

    def __init__(self, width: float):
        super().__init__()
        widths = [24, *(round(width * channels) for channels in (64, 256, 256))]
        self.whiten = nn.Conv2d(3, 24, 2)
        self.whiten.weight.requires_grad = False
        groups = []
        for inputs, outputs in itertools.pairwise(widths):
            first = Conv(inputs, outputs), nn.MaxPool2d(2), Norm(outputs), nn.GELU()
            groups += [*first, Conv(outputs, outputs), Norm(outputs), nn.GELU()]
        self.body = nn.Sequential(nn.GELU(), *groups, nn.MaxPool2d(3), nn.Flatten())
        self.head = nn.Linear(widths[-1], 10, bias=False)
        self.head.weight.data /= self.head.weight.data.std()

    def initialize_whitening(self, images: torch.Tensor) -> None:
        """Set the filters of the first layer to the eigenvectors of the patches of some images, and their negatives."""
        patches = F.unfold(images, 2).transpose(1, 2).reshape(-1, 12)
        values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
        filters = (vectors / (values + 5e-4).sqrt()).T.reshape(12, 3, 2, 2)
        self.whiten.weight.data[:] = torch.cat([filters, -filters])

    def forward(self, x: torch.Tensor, train_whitening: bool = False) -> torch.Tensor:
        """Return logits."""
        bias = self.whiten.bias if train_whitening else self.whiten.bias.detach()
        x = self.body(F.conv2d(x, self.whiten.weight, bias))
        return self.head(x) / x.shape[1]


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalized as a matrix; the norm of each kernel is constant."""

    @torch.no_grad()
    def step(self) -> None:
        """Update all parameters."""
        for group in self.param_groups:
            for p in group["params"]:
                momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
                momentum.mul_(MUON_MOMENTUM).add_(p.grad)
                update = orthogonalize(p.grad.add(momentum, alpha=MUON_MOMENTUM).reshape(len(p), -1))
                p.mul_(len(p) ** 0.5 / p.norm()).sub_(update.reshape(p.shape), alpha=group["lr"])


def orthogonalize(matrix: torch.Tensor) -> torch.Tensor:
    """Return approximately the nearest orthogonal matrix, by three Newton-Schulz iterations."""
    wide = matrix.shape[0] <= matrix.shape[1]
    x = (matrix if wide else matrix.T) / (matrix.norm() + 1e-7)
    for _ in range(3):
        a = x @ x.T
        x = 3.4445 * x + (2.0315 * a @ a - 4.7750 * a) @ x
    return x if wide else x.T


def build_optimizers(model: Network) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    """Return SGD for biases and the head, and Muon for the kernels of convolutions."""
    biases = [p for name, p in model.body.named_parameters() if p.requires_grad and p.ndim == 1]
    groups = [([model.whiten.bias], BIAS_RATE), (biases, BIAS_RATE), ([model.head.weight], HEAD_RATE)]
    sgd = torch.optim.SGD(
        [{"params": params, "lr": rate, "weight_decay": DECAY / rate} for params, rate in groups],
        momentum=SGD_MOMENTUM,
        nesterov=True,
    )
    muon = Muon([p for p in model.body.parameters() if p.ndim == 4], {"lr": MUON_RATE})
    for group in (*sgd.param_groups, *muon.param_groups):
        group["initial"] = group["lr"]
    return sgd, muon


def crop(padded: torch.Tensor) -> torch.Tensor:
    """Return a random part of each padded image."""
    n, _, side, _ = padded.shape
    down, right = torch.randint(2 * PADDING + 1, (2, n, 1)) + torch.arange(side - 2 * PADDING)
    index = torch.arange(n)[:, None, None]
    return padded[index, :, down[:, :, None], right[:, None, :]].permute(0, 3, 1, 2)


def train(model: Network, images: torch.Tensor, labels: torch.Tensor, epochs: int, dtype: torch.dtype) -> float:
    """Train, and return the seconds."""
    images = normalize(images)
    model.initialize_whitening(images[torch.randperm(len(images))[:5000]])  # they are sorted by class
    sgd, muon = build_optimizers(model)
    flip = torch.rand(len(images), 1, 1, 1) < 0.5
    padded = F.pad(torch.where(flip, images.flip(-1), images), (PADDING,) * 4, "reflect")
    steps = len(labels) // BATCH_SIZE
    began = time.perf_counter()
    for epoch in range(epochs):
        batches = torch.randperm(len(labels))[: steps * BATCH_SIZE].split(BATCH_SIZE)
        for step, rows in enumerate(batches, start=epoch * steps):
            for group in (*sgd.param_groups[1:], *muon.param_groups):
                group["lr"] = group["initial"] * (1 - step / (epochs * steps))
            whitening = step < WHITEN_EPOCHS * steps
            sgd.param_groups[0]["lr"] = BIAS_RATE * max(0, 1 - step / (WHITEN_EPOCHS * steps))
            batch = crop(padded[rows])
            batch = (batch.flip(-1) if epoch % 2 else batch).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
                logits = model(batch, whitening)
            F.cross_entropy(logits.float(), labels[rows], label_smoothing=SMOOTHING, reduction="sum").backward()
            for optimizer in (sgd, muon):
                optimizer.step()
                optimizer.zero_grad()
        print(f"epoch {epoch + 1}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    return time.perf_counter() - began


def normalize(images: torch.Tensor) -> torch.Tensor:
    """Standardize images."""
    return (images.float() / 255 - MEAN) / STD


def evaluate(model: Network, images: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """Return the accuracy, and that of the mean over mirror images and shifts by a pixel."""
    side, images = images.shape[-1], normalize(images).contiguous(memory_format=torch.channels_last)
    padded = F.pad(images, (1, 1, 1, 1), "reflect")
    views = [(0.5, images), *((0.25, padded[:, :, i : i + side, i : i + side]) for i in (0, 2))]
    with torch.no_grad():
        compute = lambda view: torch.cat([model(part) for part in view.split(500)])  # noqa: E731
        plain = compute(images)
        averaged = sum(weight * (compute(view) + compute(view.flip(-1))) for weight, view in views)
    return {
        name: float((logits.argmax(1) == labels).float().mean())
        for name, logits in (("accuracy", plain), ("accuracy_tta", averaged))
    }


def main() -> None:
    """Train and evaluate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("seed", type=int)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--width", type=float, default=1.0, help="multiplier of the channels")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="type of the activations")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    model = Network(options.width).to(memory_format=torch.channels_last)
    seconds = train(model, *read(options.root / "train"), options.epochs, getattr(torch, options.dtype))
    model.eval()
    print(json.dumps({"seconds": seconds, **evaluate(model, *read(options.root / "test"))}))


if __name__ == "__main__":
    main()
