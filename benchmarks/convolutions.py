"""Time single convolutions and max-pooling on a CPU: as jaxclf computes them, as XLA does, and in PyTorch.

    python benchmarks/convolutions.py --repeats 9 --torch-python ~/torch/bin/python

Forward, gradient by the images and gradient by the weights, in turn. Each is first compared with the plain operation
in float64, to 1e-5 of the largest value. The gradient by the images is also the forward pass of a transposed
convolution.
"""

import argparse
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from peer import Ask, Timed, measure, start_peer

from jaxclf.models.layers import MaxPool
from jaxclf.xla.compilation import compile_fast


class Case(NamedTuple):
    """A convolution, or max-pooling if there are no features, of square images with square windows."""

    batch: int
    side: int
    channels: int
    features: int
    window: int
    stride: int = 1
    groups: int = 1
    dilation: int = 1
    padding: int | None = None

    def describe(self) -> str:
        """Return the row of the table that names it."""
        more = {"stride": self.stride, "groups": self.groups, "dilation": self.dilation}
        extra = "".join(f", {name} {value}" for name, value in more.items() if value > 1)
        what = f"{self.window}² to {self.features}" if self.features else f"max-pooling {self.window}²"
        return f"{self.batch} x {self.side}² x {self.channels}, {what}{extra}"

    @property
    def pads(self) -> int:
        """Pixels on each side; by default half of the window, dilated."""
        return self.dilation * (self.window // 2) if self.padding is None else self.padding

    def measure_work(self) -> tuple[float, float]:
        """Return the GFLOP of each form, padding included, and the MB of its operands and output, each moved once.

        A form of max-pooling does a comparison for each pixel of each window.
        """
        outputs = (self.side + 2 * self.pads - self.dilation * (self.window - 1) - 1) // self.stride + 1
        pixels, features = self.batch * outputs**2, self.features or self.channels
        taps = self.window**2 * (self.channels // self.groups if self.features else 1)
        weights = taps * features if self.features else 0
        numbers = self.batch * self.side**2 * self.channels + weights + pixels * features
        return (2 if self.features else 1) * pixels * taps * features / 1e9, 4 * numbers / 1e6


CASES = (
    Case(64, 32, 3, 32, 3), Case(64, 32, 32, 32, 3), Case(64, 16, 64, 64, 3), Case(64, 8, 128, 128, 3),
    Case(64, 32, 32, 64, 3, 2), Case(128, 28, 1, 16, 5), Case(128, 14, 16, 36, 5), Case(8, 56, 64, 64, 3),
    Case(8, 224, 3, 32, 3, 2), Case(8, 224, 3, 64, 7, 2), Case(8, 224, 3, 192, 16, 16, padding=0),
    Case(8, 56, 24, 144, 1), Case(64, 32, 32, 64, 1, 2), Case(8, 28, 64, 64, 3, dilation=2),
    Case(8, 112, 32, 32, 3, groups=32), Case(8, 56, 96, 96, 3, 2, groups=96), Case(8, 14, 672, 672, 5, groups=672),
    Case(64, 16, 64, 64, 3, groups=8), Case(8, 28, 256, 256, 3, groups=32),
    Case(128, 28, 16, 0, 2, 2, padding=0), Case(8, 112, 64, 0, 3, 2),
)  # fmt: skip
FORMS = ("forward", "images", "weights")
Computation = tuple[Callable, Callable, tuple[jax.Array, ...]]
"""What jaxclf computes, the plain operation, and the operands of both."""


def build_forms(case: Case) -> dict[str, Computation]:
    """Return the computations of a case."""
    return build_convolutions(case) if case.features else build_pooling(case)


def build_pooling(case: Case) -> dict[str, Computation]:
    """Return max-pooling and its gradient by the images."""
    images = jax.random.normal(jax.random.key(0), (case.batch, case.side, case.side, case.channels))
    window, stride, pads = (case.window,) * 2, (case.stride,) * 2, ((case.pads,) * 2,) * 2
    pool = lambda x: MaxPool(case.window, case.stride, case.pads).apply({}, x)  # noqa: E731
    plain = partial(nn.max_pool, window_shape=window, strides=stride, padding=pads)
    differentiate = lambda function: lambda y, images: jax.vjp(function, images)[1](y)[0]  # noqa: E731
    gradients = differentiate(pool), differentiate(plain), (plain(images), images)
    return {"forward": (pool, plain, (images,)), "images": gradients}


def build_convolutions(case: Case) -> dict[str, Computation]:
    """Return a convolution and its two gradients."""
    key = jax.random.key(0)
    images = jax.random.normal(key, (case.batch, case.side, case.side, case.channels))
    kernel = jax.random.normal(key, (case.window, case.window, case.channels // case.groups, case.features))

    def convolve(images, kernel):
        return lax.conv_general_dilated(
            images, kernel, (case.stride,) * 2, [(case.pads,) * 2] * 2, rhs_dilation=(case.dilation,) * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=case.groups,
        )  # fmt: skip

    def transpose(function, like, y):
        return jax.linear_transpose(function, jax.ShapeDtypeStruct(like.shape, y.dtype))(y)[0]

    outputs = convolve(images, kernel)
    forms = {
        "forward": (convolve, (images, kernel)),
        "images": (lambda y, kernel: transpose(lambda x: convolve(x, kernel), images, y), (outputs, kernel)),
        "weights": (lambda y, images: transpose(lambda w: convolve(images, w), kernel, y), (outputs, images)),
    }
    return {form: (function, function, operands) for form, (function, operands) in forms.items()}


def prepare(computation: Computation, skip_plain: bool) -> dict[str, Timed]:
    """Return timed calls of jaxclf's, whose values are checked, and of the plain computation."""
    function, plain, operands = computation
    compiled = {"jaxclf": compile_fast(function, operands)}
    with jax.enable_x64(True):
        expected = np.asarray(jax.jit(plain)(*(np.asarray(x, np.float64) for x in operands)))
    np.testing.assert_allclose(compiled["jaxclf"](*operands), expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    if not skip_plain:
        compiled["XLA"] = jax.jit(plain).lower(*operands).compile()

    def make_timer(call: Callable) -> Timed:
        def run() -> float:
            began = time.perf_counter()
            jax.block_until_ready(call(*operands))
            return 1e3 * (time.perf_counter() - began)

        return run

    return {name: make_timer(call) for name, call in compiled.items()}


def prepare_torch(ask: Ask | None, case: Case, form: str) -> dict[str, Timed]:
    """Return timed calls of PyTorch in both memory layouts."""
    layouts = () if ask is None else ("PyTorch", "channels last")
    return {layout: lambda layout=layout: ask([*case[:8], case.pads, form, layout]) for layout in layouts}


def format_times(medians: dict[str, float]) -> str:
    """Format the times of a form, and how many times as fast jaxclf is as the faster layout of PyTorch."""
    torch = [medians[name] for name in ("PyTorch", "channels last") if name in medians]
    shown = [medians["jaxclf"], *([medians["XLA"]] if "XLA" in medians else []), *([min(torch)] if torch else [])]
    ratio = f" ({min(torch) / medians['jaxclf']:.2f})" if torch else ""
    return " \\| ".join(f"{value:.2f}" for value in shown) + ratio


def measure_peaks(repeats: int) -> tuple[float, float]:
    """Return the GFLOP/s of a product of matrices, and the GB/s of a sum of arrays that are larger than the caches."""
    x, y = (jax.random.normal(jax.random.key(seed), (2048, 2048)) for seed in (0, 1))
    long = jax.random.normal(jax.random.key(2), (2**24,))
    computations: dict[str, Computation] = {
        "product": (jnp.matmul, jnp.matmul, (x, y)),
        "sum": (jnp.add, jnp.add, (long, long + 1)),
    }
    medians = measure({name: prepare(each, True)["jaxclf"] for name, each in computations.items()}, repeats)
    return 2 * len(x) ** 3 / 1e6 / medians["product"], 3 * long.nbytes / 1e6 / medians["sum"]


def main() -> None:
    """Time all cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9, help="calls of each computation")
    parser.add_argument("--cases", type=int, default=len(CASES), help="number of convolutions, the first ones")
    parser.add_argument("--skip-plain", action="store_true", help="leave out XLA's own, which take seconds for groups")
    parser.add_argument("--torch-python", help="Python interpreter with torch")
    options = parser.parse_args()
    flops, bandwidth = measure_peaks(options.repeats)
    print(f"product of matrices {flops:.0f} GFLOP/s, sum of arrays {bandwidth:.0f} GB/s")
    print(f"jax {jax.__version__}, medians of {options.repeats}; ms of jaxclf | XLA | PyTorch (PyTorch / jaxclf)")
    print(f"\n| convolution | GFLOP | MB | {' | '.join(FORMS)} |\n|---|---|---|{'---|' * len(FORMS)}")
    python = options.torch_python
    with start_peer(python, "convolutions_torch.py") if python else nullcontext() as ask:
        for case in CASES[: options.cases]:
            cells = []
            for form, computation in build_forms(case).items():
                contenders = prepare(computation, options.skip_plain) | prepare_torch(ask, case, form)
                cells.append(format_times(measure(contenders, options.repeats)))
            cells += [""] * (len(FORMS) - len(cells))  # pooling has no weights
            flop, moved = case.measure_work()
            print(f"| {case.describe()} | {flop:.3g} | {moved:.3g} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
