"""Time saliency methods, interleaved, on the same trained weights: ours, PAIR saliency on our own gradient, and captum.

    python benchmarks/saliency.py runs/mnist_mlp runs/mnist_cnn --repeats 7 --torch-python ~/torch/bin/python

PAIR (`pip install saliency`) is used where it can be imported; captum runs in another process, under an interpreter
that has it and torch. What is absent is skipped, and said. PAIR's occlusion has no stride and is left out.
"""

import argparse
import contextlib
import importlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np

import jaxclf
from jaxclf import saliency
from jaxclf.inference.trained_model import TrainedModel
from jaxclf.models import Cnn

IMAGES = 64
WINDOW, STRIDE = 4, 2  # of the occlusion
Timed = Callable[[], float]  # runs once, and gives the seconds that took


def methods_of(run: TrainedModel) -> dict[str, saliency.Method]:
    """What is timed, by the name it has in the table."""
    methods = {
        "Gradient": saliency.Gradient(),
        "IG-50": saliency.IntegratedGradients(steps=50),
        "SmoothGrad-25": saliency.SmoothGrad(samples=25),
        "ten class gradients": saliency.all_classes(saliency.Gradient()),
        "Occlusion": saliency.Occlusion(WINDOW, STRIDE),
    }
    if isinstance(run.model, Cnn):
        methods["Grad-CAM"] = saliency.GradCam(layer=f"conv{len(run.model.features)}")
    return methods


def seconds(call: Callable[[], object]) -> float:
    """How long a call takes, once."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def ours(run: TrainedModel, images: np.ndarray) -> dict[str, Timed]:
    """Our methods, each called once before it is timed."""
    key = jax.random.key(0)

    def timed(method: saliency.Method) -> Timed:
        def call():
            return jax.block_until_ready(method(run.model, run.variables, images, key=key))

        call()
        return lambda: seconds(call)

    return {name: timed(method) for name, method in methods_of(run).items()}


def pair_library():
    """PAIR's `saliency.core`; the name of this file would hide it."""
    here, sys.path[:] = list(sys.path), [folder for folder in sys.path if folder != str(Path(__file__).parent)]
    try:
        return importlib.import_module("saliency.core")
    finally:
        sys.path[:] = here


def pair(run: TrainedModel, images: np.ndarray, together: bool) -> dict[str, Timed]:
    """PAIR saliency on our compiled gradient: image by image, an image's steps one by one or together."""
    core = pair_library()
    targets = run.predict(images).argmax(axis=1)

    @jax.jit
    def gradient(variables, batch, target):
        return jax.grad(lambda x: run.model.apply(variables, x)[:, target].sum())(batch)

    @jax.jit
    def score(variables, batch, target):
        return run.model.apply(variables, batch)[:, target]

    def model(batch, call_model_args, expected_keys):
        target = call_model_args
        batch = np.asarray(batch, np.float32)
        if expected_keys == [core.base.OUTPUT_LAYER_VALUES]:
            return {core.base.OUTPUT_LAYER_VALUES: np.asarray(score(run.variables, batch, target))}
        return {core.base.INPUT_OUTPUT_GRADIENTS: np.asarray(gradient(run.variables, batch, target))}

    def each(mask: Callable[[np.ndarray, int], object]) -> Timed:
        mask(images[0], targets[0])
        return lambda: seconds(lambda: [mask(x, t) for x, t in zip(images, targets, strict=True)])

    one, path = core.GradientSaliency(), core.IntegratedGradients()
    if together:
        return {"IG-50": each(lambda x, t: path.GetMask(x, model, t, x_steps=50, batch_size=50))}
    return {
        "Gradient": each(lambda x, t: one.GetMask(x, model, t)),
        "IG-50": each(lambda x, t: path.GetMask(x, model, t, x_steps=50)),
        "SmoothGrad-25": each(lambda x, t: one.GetSmoothedMask(x, model, t, nsamples=25, magnitude=False)),
        "ten class gradients": each(lambda x, _: [one.GetMask(x, model, c) for c in range(10)]),
    }


@contextlib.contextmanager
def captum(python: str, run: TrainedModel, images: np.ndarray) -> Iterator[dict[str, dict[str, Timed]]]:
    """captum in a process of its own, on the same weights, in both of torch's memory layouts; checks the gradients."""
    with tempfile.TemporaryDirectory() as folder:
        gradient = saliency.Gradient()(run.model, run.variables, images).values
        weights = {
            f"{layer}.{name}": value
            for layer, parts in run.variables["params"].items()
            for name, value in parts.items()
        }
        np.savez(Path(folder) / "model.npz", images=images, gradient=gradient, **weights)
        command = [python, str(Path(__file__).with_name("captum_methods.py")), folder, str(WINDOW), str(STRIDE)]
        worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert worker.stdin and worker.stdout
        stdin, stdout = worker.stdin, worker.stdout

        def timed(layout: str, name: str) -> Timed:
            def run_once() -> float:
                print(json.dumps([layout, name]), file=stdin, flush=True)
                return json.loads(stdout.readline())

            run_once()
            return run_once

        try:
            offered = json.loads(stdout.readline())
            yield {
                f"captum, {layout}": {name: timed(layout, name) for name in names} for layout, names in offered.items()
            }
        finally:
            stdin.close()
            worker.wait()


def contenders(run: TrainedModel, images: np.ndarray, torch_python: str | None, stack: contextlib.ExitStack):
    """All that can be timed here, by name."""
    sides = {"jaxclf": ours(run, images)}
    try:
        sides |= {"PAIR, one by one": pair(run, images, False), "PAIR, steps together": pair(run, images, True)}
    except ImportError:
        print("PAIR is skipped: pip install saliency")
    if torch_python:
        sides |= stack.enter_context(captum(torch_python, run, images))
    else:
        print("captum is skipped: give --torch-python an interpreter that has torch and captum")
    return sides


def report(sides: dict[str, dict[str, Timed]], repeats: int) -> None:
    """Time every method of every side in turn, several times over, and print medians and ratios."""
    names = list(sides["jaxclf"])
    print(f"| milliseconds | {' | '.join(names)} |\n|---|{'---|' * len(names)}")
    times = {(side, name): [] for name in names for side in sides if name in sides[side]}
    for _ in range(repeats):
        for side, name in times:
            time.sleep(0.05)  # until the threads of the one before are at rest
            sides[side][name]()  # and its own are awake
            times[side, name].append(1e3 * sides[side][name]())
    medians = {cell: statistics.median(runs) for cell, runs in times.items()}
    for side in sides:
        cells = [cell(medians.get((side, name)), medians["jaxclf", name]) for name in names]
        print(f"| {side} | {' | '.join(cells)} |")


def cell(median: float | None, our_median: float) -> str:
    """A median and its ratio to ours."""
    if median is None:
        return ""
    return f"{median:.1f}" if median == our_median else f"{median:.1f} ({median / our_median:.1f}x)"


def memory(run: TrainedModel, images: np.ndarray) -> str:
    """The memory that integrated gradients need beside their inputs and outputs, for few and for many steps."""
    sizes = []
    for steps in (50, 500):
        compiled = jax.jit(saliency.IntegratedGradients(steps=steps), static_argnums=0)
        analysis = compiled.lower(run.model, run.variables, images).compile().memory_analysis()
        sizes.append(f"{analysis.temp_size_in_bytes / 2**20:.1f} MiB with {steps} steps")
    return "IG takes " + ", ".join(sizes)


def main() -> None:
    """Time every run named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", help="directories of trained runs")
    parser.add_argument("--repeats", type=int, default=5, help="how often each method runs")
    parser.add_argument("--torch-python", help="an interpreter that has torch and captum")
    options = parser.parse_args()
    for path in options.runs:
        run = jaxclf.load(path)
        images = run.splits.test.images[:IMAGES] / np.float32(255)
        print(f"\n{path}, {len(images)} images, jax {jax.__version__}, medians of {options.repeats}")
        with contextlib.ExitStack() as stack:
            report(contenders(run, images, options.torch_python, stack), options.repeats)
        print(memory(run, images))


if __name__ == "__main__":
    sys.exit(main())
