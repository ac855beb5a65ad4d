"""Compute saliency maps of a run's predictions: `jaxclf explain runs/mnist_cnn`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxclf import saliency
from jaxclf.cli.explain_options import ExplainMethodOptions, leave_out_unsupported, select_methods
from jaxclf.cli.load_run import choose_output, load_run, load_run_with_data, prepare_output
from jaxclf.cli.predict import find_named_images
from jaxclf.config_io import to_json
from jaxclf.datasets.folders import to_printable
from jaxclf.errors import require
from jaxclf.figures import (
    plot_explanation_grid,
    plot_explanation_strip,
    plot_gradient_study,
    plot_photograph,
    save,
)
from jaxclf.inference.explain import (
    MAX_MAPS,
    Explainer,
    Explanation,
    MethodResults,
    compute_class_gradients,
    explain_split,
)
from jaxclf.inference.images import read_split
from jaxclf.inference.trained_model import TrainedModel
from jaxclf.io.files import choose_name, write_json
from jaxclf.io.formatting import format_number
from jaxclf.io.progress import track_progress
from jaxclf.reporting.tables import Table, print_table
from jaxclf.saliency.names import METHODS
from jaxclf.training.devices import Devices
from jaxclf.types import Split

DEFAULT_METHODS = ("gradient", "integrated-gradients", "smooth-grad", "grad-cam")
MAX_CLASSES = 20  # of the gradient study


def run(options: ExplainMethodOptions) -> int:
    """Load the run, explain its predictions and write the results; return the exit code."""
    methods = select_methods(options.methods or DEFAULT_METHODS, options.fields)
    if options.all_classes:
        methods = {name: saliency.all_classes(method) for name, method in methods.items()}
    files: list[str] = _find_files(options) if options.images else []
    folder = "images" if files else ""
    if files and not options.dataset:
        run, output = load_run(options), prepare_output(options, folder)
    else:
        run, output = load_run_with_data(options, folder)
    methods = leave_out_unsupported(methods, run, options.methods)
    split = read_split(run, files) if files else run.splits[options.split]
    indices = select_images(split, 0 if files else options.limit)
    explainer = Explainer(run, methods, Devices.all(), options.measures)
    explanation = explain_split(explainer, split, indices, output / "explanations.npz")
    report = {name: _summarize_results(results) for name, results in explanation.results.items()}
    _print_report(report)
    about = {"files": list(map(to_printable, files))} if files else {"split": options.split}
    _write_report(
        output / "explanations.json",
        run,
        about | {"weights": options.weights, "examples": len(indices)},
        methods,
        report,
    )
    for written in ("explanations.npz", "explanations.json"):
        print(f"wrote {output / written}")
    if files:
        written = _write_photographs(output, run, split, files, options.all_classes)
    else:
        written = _write_figures(output, run, split, indices[:MAX_MAPS], explanation)
    for figure in written:
        print(f"wrote {figure}")
    return 0


def _find_files(options: ExplainMethodOptions) -> list[str]:
    """Return the image files of the options; raise UserError if they are refused, before any work is done."""
    for name in ("split", "limit"):
        value = getattr(options, name)
        require(
            value == getattr(ExplainMethodOptions, name),
            f"--{name} {value} chooses images of a split, and image files are named; remove the option or the files",
        )
    files = find_named_images(options.images).files
    images = {Path(file).resolve() for file in files}
    for figure in _name_figures(choose_output(options, options.output, "images"), files):
        require(
            figure.resolve() not in images,
            f"{to_printable(str(figure))} is one of the images, and a figure would replace it; name another directory "
            "with --output",
        )
    return files


def _name_figures(directory: Path, files: Sequence[str]) -> list[Path]:
    """Return the file of the figure of each image; images of the same name are numbered."""
    names: set[str] = set()
    return [directory / f"{choose_name(Path(file).stem, names)}.png" for file in files]


def select_images(split: Split, limit: int) -> np.ndarray:
    """Return the indices of the first `limit` images, or of a random sample if the split is sorted by class."""
    require(limit >= 0, f"limit={limit}: expected a number of images, or 0 for all")
    if limit and np.all(np.diff(split.labels) >= 0):
        return split.sample_indices(limit)
    return np.arange(len(split))[: limit or None]


def _summarize_results(results: MethodResults) -> dict[str, Any]:
    """Return the cost of a method, and means over images of its measures with their standard errors."""
    measures = {}
    for name, parts in results.measures.items():
        values = np.concatenate(parts).astype(np.float64)
        n = len(values)
        stderr = float(values.std(ddof=1) / np.sqrt(n)) if n > 1 else None
        measures[name] = {"mean": float(values.mean()), "stderr": stderr, "n": n}
    evaluations = float(np.concatenate(results.evaluations).mean())
    return {"seconds": results.seconds, "evaluations": evaluations, "measures": measures}


def _print_report(report: dict[str, dict[str, Any]]) -> None:
    """Print a table with one row per method: evaluations per image, seconds and measures."""
    rows = []
    for name, summary in report.items():
        measures = {measure: _format_mean(values) for measure, values in summary["measures"].items()}
        cost = {"evaluations": f"{summary['evaluations']:,.4g}", "seconds": f"{summary['seconds']:.2f}"}
        rows.append({"method": name} | cost | measures)
    print_table(Table("explanations", "", rows, lambda _, text: str(text)))


def _format_mean(measure: dict[str, Any]) -> str:
    """Format a mean and its standard error."""
    stderr = "" if measure["stderr"] is None else f" ± {measure['stderr']:.1g}"
    return f"{format_number(measure['mean'])}{stderr}"


def _write_report(
    path: Path,
    run: TrainedModel,
    about: dict[str, Any],
    methods: dict[str, saliency.Method],
    report: dict[str, Any],
) -> None:
    """Write `explanations.json`."""
    explanations = {
        "step": run.step,
        **about,
        "methods": {name: {"method": to_json(methods[name]), **summary} for name, summary in report.items()},
    }
    write_json(path, explanations)


def _write_photographs(
    directory: Path, run: TrainedModel, split: Split, files: Sequence[str], every_class: bool
) -> list[Path]:
    """Draw each image with its predicted classes and all its maps, from explanations.npz; return the files."""
    with np.load(directory / "explanations.npz") as arrays:
        maps = {name: arrays[f"{name}.values"] for name in METHODS if f"{name}.values" in arrays}
    if every_class:
        maps = {name: values[np.arange(len(files)), split.labels] for name, values in maps.items()}
    images, probabilities = run.transform(split.images), run.predict(split.images)
    written = []
    for i, path in enumerate(track_progress(_name_figures(directory, files), len(files), "drawing")):
        of_image = {name: values[i] for name, values in maps.items()}
        figure = plot_photograph(images[i], probabilities[i], of_image, run.class_names)
        written.append(save(figure, path))
    return written


def _write_figures(
    directory: Path, run: TrainedModel, split: Split, indices: np.ndarray, explanation: Explanation
) -> list[Path]:
    """Draw the gradient study, a grid with the maps of all methods, and a strip per method; return the files."""
    images, labels, predictions = split.images[indices], split.labels[indices], explanation.predictions[: len(indices)]
    most_probable = np.argsort(-run.predict(images).mean(axis=0), stable=True)
    classes = sorted(most_probable[:MAX_CLASSES].tolist())
    images = run.transform(images)
    gradients = compute_class_gradients(run, images, classes)
    maps = {name: np.array(results.maps) for name, results in explanation.results.items()}
    study = plot_gradient_study(images, labels, predictions, gradients, classes, run.class_names)
    grid = plot_explanation_grid(images, labels, predictions, maps, run.class_names)
    written = [save(study, directory / "gradient_study.png"), save(grid, directory / "explanations.png")]
    strips = directory / "explanations"
    strips.mkdir(exist_ok=True)
    for name in METHODS:
        path = strips / f"{name}.png"
        path.unlink(missing_ok=True)  # left by an earlier call
        if name in maps:
            written.append(save(plot_explanation_strip(images, maps[name], name), path))
    return written
