"""The convolutions of `convolutions.py` in PyTorch: reads requests as JSON lines, and replies with milliseconds."""

import json
import sys
import time
from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's convention

LAYOUTS = {"PyTorch": torch.contiguous_format, "channels last": torch.channels_last}


@cache
def build(
    batch: int, side: int, channels: int, features: int, window: int, stride: int, groups: int, dilation: int,
    padding: int, form: str, layout: str,
) -> Callable:  # fmt: skip
    """Return a call without arguments of a form of a convolution, or of max-pooling if there are no features."""
    images = torch.randn(batch, channels, side, side).to(memory_format=LAYOUTS[layout])
    if not features:
        return build_pooling(images, (window, stride, padding), form)
    kernel = torch.randn(features, channels // groups, window, window).to(memory_format=LAYOUTS[layout])
    options = (stride, padding, dilation, groups)
    if form == "forward":
        return lambda: F.conv2d(images, kernel, None, *options)
    outputs = torch.randn_like(F.conv2d(images, kernel, None, *options)).to(memory_format=LAYOUTS[layout])
    wanted = [form == "images", form == "weights", False]
    pairs = ([stride] * 2, [padding] * 2, [dilation] * 2)
    differentiate = torch.ops.aten.convolution_backward
    return lambda: differentiate(outputs, images, kernel, [0], *pairs, False, [0, 0], groups, wanted)


def build_pooling(images: torch.Tensor, sizes: tuple[int, int, int], form: str) -> Callable:
    """Return a call of max-pooling by window, stride and padding, or of its gradient."""
    if form == "forward":
        return lambda: F.max_pool2d(images, *sizes)
    outputs, indices = F.max_pool2d(images, *sizes, return_indices=True)
    window, stride, padding = ([size] * 2 for size in sizes)
    differentiate = torch.ops.aten.max_pool2d_with_indices_backward
    return lambda: differentiate(outputs, images, window, stride, padding, [1, 1], False, indices)


@torch.no_grad()
def main() -> None:
    """Reply to requests until the end of the input."""
    for line in sys.stdin:
        call = build(*json.loads(line))
        began = time.perf_counter()
        call()
        print(json.dumps(1e3 * (time.perf_counter() - began)), flush=True)


if __name__ == "__main__":
    main()
