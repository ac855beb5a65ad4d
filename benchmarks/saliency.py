"""Time saliency methods on the same trained weights, interleaved: jaxclf, PAIR saliency and captum.

    python benchmarks/saliency.py runs/mnist_mlp runs/mnist_cnn --repeats 7 --torch-python ~/torch/bin/python

PAIR (`pip install saliency`) runs in this process, on a compiled gradient; captum runs in a subprocess with an
interpreter that has captum and torch. Libraries that are not installed are skipped with a message. PAIR's occlusion has
no stride and is excluded.
"""

import argparse
import contextlib
import importlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
from peer import Timed, start_peer

import jaxclf
from jaxclf import saliency
from jaxclf.inference.trained_model import TrainedModel
from jaxclf.models import Cnn

IMAGES = 64
WINDOW, STRIDE = 4, 2  # of occlusion, in pixels


def build_methods(run: TrainedModel) -> dict[str, saliency.Method]:
    """Return the methods to time, by name in the table."""
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


def time_call(call: Callable[[], object]) -> float:
    """Return the seconds of one call."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def prepare_jaxclf(run: TrainedModel, images: np.ndarray) -> dict[str, Timed]:
    """Compile the methods of jaxclf."""
    key = jax.random.key(0)

    def timed(method: saliency.Method) -> Timed:
        def call():
            return jax.block_until_ready(method(run.model, run.variables, images, key=key))

        call()
        return lambda: time_call(call)

    return {name: timed(method) for name, method in build_methods(run).items()}


def import_pair():
    """Import PAIR's `saliency.core`, which the name of this file would hide."""
    here, sys.path[:] = list(sys.path), [folder for folder in sys.path if folder != str(Path(__file__).parent)]
    try:
        return importlib.import_module("saliency.core")
    finally:
        sys.path[:] = here


def prepare_pair(run: TrainedModel, images: np.ndarray, together: bool) -> dict[str, Timed]:
    """Prepare PAIR saliency, image by image, with the steps of an image one by one or in one batch."""
    core = import_pair()
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
        return lambda: time_call(lambda: [mask(x, t) for x, t in zip(images, targets, strict=True)])

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
def start_captum(python: str, run: TrainedModel, images: np.ndarray) -> Iterator[dict[str, dict[str, Timed]]]:
    """Start captum in a subprocess, on the same weights, in both memory layouts; its gradients are checked there."""
    with tempfile.TemporaryDirectory() as folder:
        gradient = saliency.Gradient()(run.model, run.variables, images).values
        weights = {
            f"{layer}.{name}": value
            for layer, parts in run.variables["params"].items()
            for name, value in parts.items()
        }
        np.savez(Path(folder) / "model.npz", images=images, gradient=gradient, **weights)
        with start_peer(python, "captum_methods.py", folder, str(WINDOW), str(STRIDE)) as ask:
            yield {
                f"captum, {layout}": {name: lambda request=(layout, name): ask(request) for name in names}
                for layout, names in ask(None).items()
            }


def prepare_libraries(run: TrainedModel, images: np.ndarray, torch_python: str | None, stack: contextlib.ExitStack):
    """Prepare the methods of all libraries that are installed."""
    libraries = {"jaxclf": prepare_jaxclf(run, images)}
    try:
        libraries |= {
            "PAIR, one by one": prepare_pair(run, images, False),
            "PAIR, steps together": prepare_pair(run, images, True),
        }
    except ImportError:
        print("PAIR is skipped: pip install saliency")
    if torch_python:
        libraries |= stack.enter_context(start_captum(torch_python, run, images))
    else:
        print("captum is skipped: set --torch-python to an interpreter with torch and captum")
    return libraries


def report(libraries: dict[str, dict[str, Timed]], repeats: int) -> None:
    """Time every method of every library in turn, several times over, and print medians and ratios."""
    names = list(libraries["jaxclf"])
    print(f"| milliseconds | {' | '.join(names)} |\n|---|{'---|' * len(names)}")
    times = {(library, name): [] for name in names for library in libraries if name in libraries[library]}
    for _ in range(repeats):
        for library, name in times:
            time.sleep(0.05)  # let the threads of the previous library go to sleep
            libraries[library][name]()  # warm-up, not counted
            times[library, name].append(1e3 * libraries[library][name]())
    medians = {key: statistics.median(runs) for key, runs in times.items()}
    for library in libraries:
        entries = [format_entry(medians.get((library, name)), medians["jaxclf", name]) for name in names]
        print(f"| {library} | {' | '.join(entries)} |")


def format_entry(median: float | None, jaxclf_median: float) -> str:
    """Format a median and its ratio to that of jaxclf."""
    if median is None:
        return ""
    return f"{median:.1f}" if median == jaxclf_median else f"{median:.1f} ({median / jaxclf_median:.1f}x)"


def describe_memory(run: TrainedModel, images: np.ndarray) -> str:
    """Return the temporary memory of integrated gradients, for few and many steps."""
    sizes = []
    for steps in (50, 500):
        compiled = jax.jit(saliency.IntegratedGradients(steps=steps), static_argnums=0)
        analysis = compiled.lower(run.model, run.variables, images).compile().memory_analysis()
        sizes.append(f"{analysis.temp_size_in_bytes / 2**20:.1f} MiB with {steps} steps")
    return "IG uses " + ", ".join(sizes)


def main() -> None:
    """Time all runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", help="directories of trained runs")
    parser.add_argument("--repeats", type=int, default=5, help="calls of each method")
    parser.add_argument("--torch-python", help="Python interpreter with torch and captum")
    options = parser.parse_args()
    for path in options.runs:
        run = jaxclf.load(path)
        images = run.splits.test.images[:IMAGES] / np.float32(255)
        print(f"\n{path}, {len(images)} images, jax {jax.__version__}, medians of {options.repeats}")
        with contextlib.ExitStack() as stack:
            report(prepare_libraries(run, images, options.torch_python, stack), options.repeats)
        print(describe_memory(run, images))


if __name__ == "__main__":
    sys.exit(main())
