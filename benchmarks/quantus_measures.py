"""Time measures of saliency maps on the same trained weights and maps, interleaved: jaxclf and Quantus.

    python benchmarks/quantus_measures.py runs/mnist_cnn --torch-python ~/torch/bin/python

Both compute the measures that both have, for the maps of seven methods, with the same number of samples, steps and
cells. Quantus runs in a subprocess (`quantus_worker.py`) with an interpreter that has quantus, torch and captum; it
gets the maps of jaxclf, and explains changed images with captum. Compilation is not counted: each measure of jaxclf is
called once before it is timed.
"""

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import jax
import numpy as np
from peer import start_peer

import jaxclf
from jaxclf import saliency
from jaxclf.inference.trained_model import TrainedModel

METHODS = {
    "gradient": saliency.Gradient(),
    "gradient-times-input": saliency.GradientTimesInput(),
    "integrated-gradients": saliency.IntegratedGradients(steps=50),
    "smooth-grad": saliency.SmoothGrad(samples=25),
    "deep-lift": saliency.DeepLift(),
    "grad-cam": saliency.GradCam(upsample="bilinear"),
    "occlusion": saliency.Occlusion(window=4, stride=2),
}
SETTINGS = {
    "samples": 10,  # random images nearby, and noisy images of the smooth randomization test
    "subsets": 100,  # of faithfulness correlation
    "subset_size": 156,  # a fifth of the pixels
    "perturbations": 490,  # of infidelity: 10 samples of 49 patches in Quantus
    "steps": 28,  # of the deletion curve
    "cells": 4,  # along each side, of IROF
    "k": 100,  # pixels of the top-k intersection
    "radius": 0.02,
    "layer": "conv2",  # of relative representation stability
}
Timed = Callable[[str, str], tuple[float, float]]  # runs a measure of a method once; returns seconds and mean score


def build_measures(run: TrainedModel, images: np.ndarray, mask: np.ndarray, settings: dict) -> dict[str, Callable]:
    """Return the measures as functions of a method and its attribution, by the name of Quantus' class."""
    key, n = jax.random.key(0), settings["samples"]
    inputs = (run.model, run.variables, images)
    nearby = {"key": key, "samples": n, "radius": settings["radius"]}
    stability = partial(saliency.relative_stability, **nearby)
    layer = {"relative_to": "representation", "layer": settings["layer"]}
    return {
        "Sparseness": lambda _, a: saliency.gini(a),
        "Complexity": lambda _, a: saliency.entropy(a),
        "PointingGame": lambda _, a: saliency.pointing_game(a, mask),
        "RelevanceMassAccuracy": lambda _, a: saliency.relevance_mass_accuracy(a, mask),
        "RelevanceRankAccuracy": lambda _, a: saliency.relevance_rank_accuracy(a, mask),
        "TopKIntersection": lambda _, a: saliency.top_k_intersection(a, mask, k=settings["k"]),
        "AUC": lambda _, a: saliency.localization_auc(a, mask),
        "PixelFlipping": lambda _, a: saliency.deletion(*inputs, a, steps=settings["steps"]).curve[:, 1:],
        "ROAD": lambda _, a: saliency.road(*inputs, a, key=key).auc,
        "IROF": lambda _, a: saliency.irof(*inputs, a, cells=settings["cells"]),
        "FaithfulnessCorrelation": lambda _, a: saliency.faithfulness_correlation(
            *inputs, a, key=key, n=settings["subset_size"], samples=settings["subsets"]
        ),
        "Infidelity": lambda _, a: saliency.infidelity(*inputs, a, key=key, samples=settings["perturbations"]),
        "MaxSensitivity": lambda method, _: saliency.sensitivity_max(method, *inputs, **nearby),
        "LocalLipschitzEstimate": lambda method, _: saliency.local_lipschitz(method, *inputs, **nearby),
        "RelativeInputStability": lambda method, _: stability(method, *inputs),
        "RelativeOutputStability": lambda method, _: stability(method, *inputs, relative_to="output"),
        "RelativeRepresentationStability": lambda method, _: stability(method, *inputs, **layer),
        "MPRT": lambda method, _: saliency.parameter_randomization(method, *inputs, key=key).rank_correlation,
        "SmoothMPRT": lambda method, _: (
            saliency.parameter_randomization(
                saliency.SmoothGrad(method, samples=n, noise=0.1), *inputs, key=key
            ).rank_correlation
        ),
        "EfficientMPRT": lambda method, _: saliency.efficient_randomization(method, *inputs, key=key),
        "RandomLogit": lambda method, _: saliency.random_logit(method, *inputs, key=key).rank_correlation,
        "InputInvariance": lambda method, _: saliency.input_invariance(method, *inputs, key=key),
    }


def prepare_jaxclf(run: TrainedModel, attributions: dict, measures: dict[str, Callable]) -> Timed:
    """Return a function that times a measure of jaxclf."""

    def run_once(measure: str, method: str) -> tuple[float, float]:
        began = time.perf_counter()
        scores = np.asarray(measures[measure](METHODS[method], attributions[method]))
        return time.perf_counter() - began, float(np.nanmean(scores))

    return run_once


@contextlib.contextmanager
def start_quantus(python: str, run: TrainedModel, arrays: dict[str, np.ndarray], settings: dict) -> Iterator[Timed]:
    """Start Quantus in a subprocess, on the same weights and maps."""
    with tempfile.TemporaryDirectory() as folder:
        weights = {
            f"{layer}.{name}": value
            for layer, parts in run.variables["params"].items()
            for name, value in parts.items()
        }
        np.savez(Path(folder) / "model.npz", **arrays, **weights)
        with start_peer(python, "quantus_worker.py", folder, json.dumps(settings)) as ask:
            yield lambda measure, method: tuple(ask([measure, method]))


def report(libraries: dict[str, Timed], measures: list[str], methods: list[str], repeats: int) -> None:
    """Time every measure of every method in turn, several times over, and print medians, summed over methods."""
    print("| measure | jaxclf, s | Quantus, s | ratio | means over methods and images |\n|---|---|---|---|---|")
    totals = dict.fromkeys(libraries, 0.0)
    for measure in measures:
        seconds, means = dict.fromkeys(libraries, 0.0), {library: [] for library in libraries}
        for method in methods:
            times = {library: [] for library in libraries}
            libraries["jaxclf"](measure, method)  # compiles
            for _ in range(repeats):
                for library, timed in libraries.items():
                    time.sleep(0.05)  # let the threads of the previous library go to sleep
                    duration, mean = timed(measure, method)
                    times[library].append(duration)
                    means[library].append(mean)
            for library in libraries:
                seconds[library] += statistics.median(times[library])
        totals = {library: totals[library] + seconds[library] for library in libraries}
        scores = ", ".join(f"{np.mean(means[library]):.3g}" for library in libraries)
        print(format_row(measure, seconds, scores), flush=True)
    print(format_row("all", totals, ""))


def format_row(name: str, seconds: dict[str, float], scores: str) -> str:
    """Format a row of the table."""
    ours, theirs = seconds["jaxclf"], seconds["Quantus"]
    return f"| {name} | {ours:.3f} | {theirs:.2f} | {theirs / ours:.1f}x | {scores} |"


def main() -> None:
    """Time all measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="directory of a trained run")
    parser.add_argument("--torch-python", required=True, help="Python interpreter with torch, captum and quantus")
    parser.add_argument("--images", type=int, default=100, help="number of test images")
    parser.add_argument("--repeats", type=int, default=3, help="timed calls of each measure and method")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), help="saliency methods")
    parser.add_argument("--measures", nargs="+", help="names of Quantus' classes; by default all")
    options = parser.parse_args()
    run = jaxclf.load(options.run)
    images = run.splits.test.images[: options.images] / np.float32(255)
    mask = images[..., 0] > 0.5
    measures = build_measures(run, images, mask, SETTINGS)
    names = options.measures or list(measures)
    attributions = {
        name: METHODS[name](run.model, run.variables, images, key=jax.random.key(0)) for name in options.methods
    }
    maps = {f"map {name}": np.asarray(a.values) for name, a in attributions.items()}
    arrays = {"images": images, "mask": mask, "targets": run.predict(images).argmax(axis=1), **maps}
    print(f"{options.run}, {len(images)} images, {len(options.methods)} methods, medians of {options.repeats}")
    print(f"jax {jax.__version__}, settings {SETTINGS}\n")
    with start_quantus(options.torch_python, run, arrays, SETTINGS) as quantus:
        libraries = {"jaxclf": prepare_jaxclf(run, attributions, measures), "Quantus": quantus}
        report(libraries, names, options.methods, options.repeats)


if __name__ == "__main__":
    sys.exit(main())
