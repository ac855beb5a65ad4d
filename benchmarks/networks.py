"""Time networks for photographs on random images, in turn: jaxclf, and PyTorch with timm in both memory layouts.

    python benchmarks/networks.py --repeats 7 --torch-python ~/torch/bin/python

Evaluation, gradient by the pixels (`saliency.Gradient`), integrated gradients (captum's in PyTorch) and training steps
with SGD, all on one batch in memory.
"""

import argparse
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from peer import Timed, measure, start_peer

from jaxclf.losses import CrossEntropy
from jaxclf.models import EfficientNetLite, ResNet, Vit
from jaxclf.models.calling import initialize_model
from jaxclf.optimizers import Sgd
from jaxclf.saliency import Gradient, IntegratedGradients
from jaxclf.training.state import create_state
from jaxclf.training.step import compute_logits, train_steps
from jaxclf.training.step_config import StepConfig
from jaxclf.types import Batch
from jaxclf.xla.compilation import compile_fast


class Work(NamedTuple):
    """A row of the table; `networks_torch.py` has the same model by name."""

    model: nn.Module
    batch: int
    side: int
    kind: str
    """forward, pixels, path or training."""


LITE = EfficientNetLite.named(0, 1000)
WORKS = {
    "EfficientNet-Lite0, forward": Work(LITE, 16, 224, "forward"),
    "EfficientNet-Lite0, gradient by the pixels": Work(LITE, 16, 224, "pixels"),
    "EfficientNet-Lite0, training": Work(EfficientNetLite.named(0, 10), 16, 224, "training"),
    "ResNet-50, forward": Work(ResNet.named(50, 1000), 8, 224, "forward"),
    "ResNet-50, gradient by the pixels": Work(ResNet.named(50, 1000), 8, 224, "pixels"),
    "ResNet-18 of width 32, training": Work(ResNet((2, 2, 2, 2), 10, width=32, stem="cifar"), 64, 32, "training"),
    "ViT of width 192, training": Work(Vit(4, 192, 6, 3, 10, (32, 32)), 64, 32, "training"),
    "ViT-Ti/16, forward": Work(Vit.named("Ti/16", 1000), 16, 224, "forward"),
    "ViT-Ti/16, gradient by the pixels": Work(Vit.named("Ti/16", 1000), 16, 224, "pixels"),
    "ViT-Ti/16, integrated gradients of 50 steps": Work(Vit.named("Ti/16", 1000), 2, 224, "path"),
}


def prepare(work: Work) -> tuple[Timed, float]:
    """Return a timed call, and the temporary memory of its program in MB."""
    images = np.random.default_rng(0).integers(0, 256, (work.batch, work.side, work.side, 3), np.uint8)
    build = build_training if work.kind == "training" else build_evaluation
    call, program = build(work, images)

    def run() -> float:
        began = time.perf_counter()
        jax.block_until_ready(call())
        return time.perf_counter() - began

    return run, program.memory_analysis().temp_size_in_bytes / 1e6


def build_evaluation(work: Work, images: np.ndarray) -> tuple[Callable, jax.stages.Compiled]:
    """Return a call of the logits, or of a saliency method for the first logit, and its program."""
    floats = jnp.asarray(images / np.float32(255))
    variables = jax.jit(lambda x: initialize_model(work.model, jax.random.key(0), x)[1])(floats)
    method = {"pixels": Gradient(), "path": IntegratedGradients(steps=50)}.get(work.kind)
    targets = np.zeros(work.batch, np.int32)

    def function(variables: Any, images: jax.Array) -> jax.Array:
        if method is None:
            return compute_logits(work.model, variables, images)
        return method(work.model, variables, images, targets).values

    program = compile_fast(function, (variables, floats))
    return lambda: program(variables, floats), program


def build_training(work: Work, images: np.ndarray) -> tuple[Callable, jax.stages.Compiled]:
    """Return a call of a training step, and its program."""
    batch = Batch(images, np.arange(work.batch, dtype=np.int32) % 10, np.ones(work.batch, bool))
    transformation = Sgd(learning_rate=0.01, momentum=0.9, nesterov=True).build(1000)
    step_config = StepConfig(work.model, CrossEntropy(), (), transformation)
    stacked = jax.tree.map(lambda x: x[None], batch)
    state = jax.jit(partial(create_state, step_config, batch))()
    program = compile_fast(partial(train_steps, step_config), (state, stacked, None, np.int32(1)), donate_argnums=0)

    def call() -> jax.Array:
        nonlocal state
        state = program(state, stacked, None, np.int32(1))
        return state.step

    return call, program


def main() -> None:
    """Time all works, and print images/s."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7, help="calls of each")
    parser.add_argument("--works", nargs="*", default=list(WORKS), help="names of rows of the table; all by default")
    parser.add_argument("--torch-python", help="Python interpreter with torch and timm")
    options = parser.parse_args()
    print(f"jax {jax.__version__}, images/s, medians of {options.repeats}\n")
    print("| network | batch | jaxclf | PyTorch | channels last | jaxclf / PyTorch | temporary memory of jaxclf, MB |")
    print("|---|---|---|---|---|---|---|")
    python = options.torch_python
    with start_peer(python, "networks_torch.py") if python else nullcontext() as ask:
        for name in options.works:
            work = WORKS[name]
            run, memory = prepare(work)
            layouts = ("PyTorch", "channels last") if ask else ()
            peers = {layout: partial(ask, [name, layout, *work[1:]]) for layout in layouts} if ask else {}
            speeds = {
                key: work.batch / each for key, each in measure({"jaxclf": run, **peers}, options.repeats).items()
            }
            cells = [f"{speeds[key]:.1f}" if key in speeds else "" for key in ("jaxclf", "PyTorch", "channels last")]
            ratio = f"{speeds['jaxclf'] / max(speeds[key] for key in layouts):.2f}" if layouts else ""
            print(f"| {name} | {work.batch} | {' | '.join(cells)} | {ratio} | {memory:.0f} |", flush=True)


if __name__ == "__main__":
    main()
