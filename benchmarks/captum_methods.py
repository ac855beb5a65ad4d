"""Worker of benchmarks/saliency.py: time captum's methods on the same network in PyTorch.

Reads lines of JSON, [layout, method], and replies to each with the seconds of one call. Needs torch and captum, not
jaxclf.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from captum import attr

LAYOUTS = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}


def build_network(arrays: dict[str, np.ndarray]) -> torch.nn.Sequential:
    """Build the network for images [b, c, h, w] from the arrays `conv1.kernel`, …, `dense1.bias`, …, `logits.bias`."""
    layers, height, width = [], *arrays["images"].shape[1:3]
    convolutions = [name for name in arrays if name.startswith("conv") and name.endswith(".kernel")]
    channels = 1
    for name in sorted(convolutions):
        kernel, bias = arrays[name], arrays[name.replace("kernel", "bias")]
        size, channels = kernel.shape[0], kernel.shape[3]
        layer = torch.nn.Conv2d(kernel.shape[2], channels, size, padding=size // 2)
        fill(layer, kernel.transpose(3, 2, 0, 1), bias)
        layers += [layer, torch.nn.ReLU(), torch.nn.MaxPool2d(2)]
        height, width = height // 2, width // 2
    layers.append(torch.nn.Flatten())
    dense = sorted(name for name in arrays if name.startswith("dense") and name.endswith(".kernel"))
    for i, name in enumerate([*dense, "logits.kernel"]):
        kernel = arrays[name]
        if i == 0:  # Flax flattens [h, w, c], PyTorch [c, h, w]
            kernel = kernel.reshape(height, width, channels, -1).transpose(2, 0, 1, 3).reshape(kernel.shape)
        layer = torch.nn.Linear(*kernel.shape)
        fill(layer, kernel.T, arrays[name.replace("kernel", "bias")])
        layers += [layer, torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1]).eval()


def fill(layer: torch.nn.Module, weight: np.ndarray, bias: np.ndarray) -> None:
    """Copy weights into a layer."""
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight.copy()))
        layer.bias.copy_(torch.from_numpy(bias))


def build_calls(model: torch.nn.Sequential, images: torch.Tensor, window: int, stride: int) -> dict:
    """Return calls without arguments, by method name in the table."""
    targets = model(images).argmax(dim=1)
    gradient, smooth = attr.Saliency(model), attr.NoiseTunnel(attr.Saliency(model))
    spread = 0.15 * float(images.detach().max() - images.detach().min())
    occlusion = {"sliding_window_shapes": (images.shape[1], window, window), "strides": (1, stride, stride)}
    calls = {
        "Gradient": lambda: gradient.attribute(images, targets, abs=False),
        "IG-50": lambda: attr.IntegratedGradients(model).attribute(images, target=targets, n_steps=50),
        "SmoothGrad-25": lambda: smooth.attribute(images, nt_samples=25, stdevs=spread, target=targets, abs=False),
        "ten class gradients": lambda: [gradient.attribute(images, c, abs=False) for c in range(10)],
        "Occlusion": lambda: attr.Occlusion(model).attribute(images, target=targets, **occlusion),
    }
    convolutions = [layer for layer in model if isinstance(layer, torch.nn.Conv2d)]
    if convolutions:
        calls["Grad-CAM"] = lambda: attr.LayerGradCam(model, convolutions[-1]).attribute(images, targets)
    return calls


def main() -> None:
    """Check the gradients against those of jaxclf, then reply to requests until the end of the input."""
    folder, window, stride = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    arrays = dict(np.load(folder / "model.npz"))
    images = torch.from_numpy(arrays["images"].transpose(0, 3, 1, 2).copy())
    calls_by_layout = {}
    for layout, memory_format in LAYOUTS.items():
        model = build_network(arrays).to(memory_format=memory_format)
        calls_by_layout[layout] = build_calls(
            model, images.to(memory_format=memory_format).requires_grad_(), window, stride
        )
        gradient = calls_by_layout[layout]["Gradient"]().detach().numpy().transpose(0, 2, 3, 1)
        # At a kink of a ReLU or a pooling, rounding decides: of a few images the gradients may differ.
        apart = np.abs(gradient - arrays["gradient"]).max(axis=tuple(range(1, gradient.ndim)))
        share = np.mean(apart > 1e-3 * np.abs(arrays["gradient"]).max())
        assert share <= 0.05, f"gradients of {share:.0%} of the images differ"
    input()  # the first request asks for the names
    print(json.dumps({layout: list(calls) for layout, calls in calls_by_layout.items()}), flush=True)
    for line in sys.stdin:
        layout, name = json.loads(line)
        began = time.perf_counter()
        calls_by_layout[layout][name]()
        print(json.dumps(time.perf_counter() - began), flush=True)


if __name__ == "__main__":
    main()
