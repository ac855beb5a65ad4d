"""Explain what a trained run finds in images: `python explain.py runs/mnist_cnn`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console as RichConsole
from rich.table import Table

from jaxclf import saliency
from jaxclf.cli.explain_options import ExplainMethodOptions
from jaxclf.cli.load_run import load_run
from jaxclf.config_io import to_json
from jaxclf.errors import UserError, require
from jaxclf.inference.explain import DRAWN, Explainer, Explanation, Findings, class_gradients, explain, refusal
from jaxclf.inference.trained_model import TrainedModel
from jaxclf.io.files import write_json
from jaxclf.reporting.figures import explanation_grid, explanation_strip, gradient_study, save
from jaxclf.saliency.names import METHODS, check_name
from jaxclf.training.devices import Devices
from jaxclf.types import Split

FEW = ("gradient", "integrated-gradients", "smooth-grad", "grad-cam")  # run where no methods are named
STUDIED = 20  # most classes in the gradient study
WIDE = 1_000  # columns; cut to a terminal's, the table would lose digits


def run(options: ExplainMethodOptions) -> int:
    """Load the run, ask the methods about images, print and write what they say."""
    names = method_names(options)
    run = load_run(options)
    methods = fitting_methods(options, names, run)
    split = run.splits[options.split]
    indices = chosen_images(split, options.limit)
    explainer = Explainer(run, methods, Devices.all(), options.measures)
    explanation = explain(explainer, split, indices, options.run / "explanations.npz")
    report = {name: summary(findings) for name, findings in explanation.findings.items()}
    print_report(report)
    write_report(run, options, len(indices), methods, report)
    for written in ("explanations.npz", "explanations.json"):
        print(f"wrote {options.run / written}")
    for picture in write_pictures(options.run, run, split, indices[:DRAWN], explanation):
        print(f"wrote {picture}")
    return 0


def method_names(options: ExplainMethodOptions) -> tuple[str, ...]:
    """The methods that are asked for; raises UserError for a wrong name, and for fields of one that is not."""
    names = options.methods or FEW
    if "all" in names:
        names = tuple(METHODS)
    for name in names:
        check_name(name, more=", or all")
    for name, cls in METHODS.items():
        require(
            name in names or method_of(options, name) == cls(),
            f"a field of {name} is given, which is not among the methods; add it: --methods {' '.join((*names, name))}",
        )
    return names


def method_of(options: ExplainMethodOptions, name: str) -> saliency.Method:
    """A method with its fields from the command line."""
    return getattr(options.fields, name.replace("-", "_"))


def fitting_methods(
    options: ExplainMethodOptions, names: Sequence[str], run: TrainedModel
) -> dict[str, saliency.Method]:
    """Methods by name. One that is named must fit the network; of all, or a few, those that do not are left out."""
    methods = {}
    for name in names:
        method = method_of(options, name)
        method = saliency.all_classes(method) if options.all_classes else method
        reason = refusal(run, method)
        if reason is None:
            methods[name] = method
        elif name in options.methods:
            raise UserError(f"{name}: {reason}") from reason
        elif options.methods:
            print(f"{name} left out: {reason}", file=sys.stderr)
    return methods


def chosen_images(split: Split, limit: int) -> np.ndarray:
    """Indices of the first images of a split; of one that is in the order of its classes, as folders are, of some."""
    require(limit >= 0, f"limit={limit}: expected a number of images, or 0 for all")
    if limit and np.all(np.diff(split.labels) >= 0):
        return split.some(limit)
    return np.arange(len(split))[: limit or None]


def summary(findings: Findings) -> dict[str, Any]:
    """What a method took, and what was measured: means over images with their standard errors."""
    measures = {}
    for name, parts in findings.measures.items():
        values = np.concatenate(parts).astype(np.float64)
        n = len(values)
        stderr = float(values.std(ddof=1) / np.sqrt(n)) if n > 1 else None
        measures[name] = {"mean": float(values.mean()), "stderr": stderr, "n": n}
    evaluations = float(np.concatenate(findings.evaluations).mean())
    return {"seconds": findings.seconds, "evaluations": evaluations, "measures": measures}


def print_report(report: dict[str, dict[str, Any]]) -> None:
    """A row a method: evaluations an image, seconds, and the measures."""
    measured = list(dict.fromkeys(name for row in report.values() for name in row["measures"]))
    table = Table("method", box=None, padding=(0, 1))
    for heading in ("evaluations", "seconds", *measured):
        table.add_column(heading, justify="right")
    for name, row in report.items():
        cells = (in_short(row["measures"].get(measure)) for measure in measured)
        table.add_row(name, f"{row['evaluations']:,.4g}", f"{row['seconds']:.2f}", *cells)
    RichConsole(file=sys.stdout, width=WIDE).print(table)


def in_short(measure: dict[str, Any] | None) -> str:
    """A mean and its standard error."""
    if measure is None:
        return "."
    stderr = "" if measure["stderr"] is None else f" ± {measure['stderr']:.1g}"
    return f"{measure['mean']:.4g}{stderr}"


def write_report(
    run: TrainedModel,
    options: ExplainMethodOptions,
    examples: int,
    methods: dict[str, saliency.Method],
    report: dict[str, Any],
) -> None:
    """Write `explanations.json`."""
    explanations = {
        "step": run.step,
        "split": options.split,
        "weights": options.weights,
        "examples": examples,
        "methods": {name: {"method": to_json(methods[name]), **row} for name, row in report.items()},
    }
    write_json(options.run / "explanations.json", explanations)


def write_pictures(
    directory: Path, run: TrainedModel, split: Split, indices: np.ndarray, explanation: Explanation
) -> list[Path]:
    """Draw the gradient study, the maps of all methods in a grid, and those of each in a strip."""
    images, labels, found = split.images[indices], split.labels[indices], explanation.predictions[: len(indices)]
    probable = np.argsort(-run.predict(images).mean(axis=0), stable=True)
    classes = sorted(probable[:STUDIED].tolist())
    gradients = class_gradients(run, images, classes)
    maps = {name: np.array(findings.maps) for name, findings in explanation.findings.items()}
    study = gradient_study(images, labels, found, gradients, classes, run.class_names)
    grid = explanation_grid(images, labels, found, maps, run.class_names)
    written = [save(study, directory / "gradient_study.png"), save(grid, directory / "explanations.png")]
    strips = directory / "explanations"
    strips.mkdir(exist_ok=True)
    for name in METHODS:
        path = strips / f"{name}.png"
        path.unlink(missing_ok=True)  # that of an earlier call
        if name in maps:
            written.append(save(explanation_strip(images, maps[name], name), path))
    return written
