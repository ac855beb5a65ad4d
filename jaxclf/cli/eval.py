"""Evaluate a trained run: `python eval.py runs/mnist_cnn`."""

from __future__ import annotations

import csv
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console as RichConsole
from rich.table import Table
from rich.text import Text

from jaxclf.cli.load_run import load_run
from jaxclf.cli.options import EvalOptions
from jaxclf.datasets.scan import printable
from jaxclf.errors import require
from jaxclf.inference.trained_model import TrainedModel
from jaxclf.io.files import whole, write_json
from jaxclf.io.progress import working
from jaxclf.metrics import Accuracy, Confusion, TopK
from jaxclf.reporting.report import Evaluated, write_report
from jaxclf.reporting.run_figures import write_pictures
from jaxclf.runs.directory import read_metrics
from jaxclf.training.devices import Devices
from jaxclf.training.evaluation import Evaluation, evaluate
from jaxclf.training.recipe import recipe_of
from jaxclf.training.writers import scalars, show
from jaxclf.types import Split

WIDE = 1_000  # columns; cut to a terminal's, the table would lose digits


def run(options: EvalOptions) -> int:
    """Load a run, evaluate a split, print and write the results; return the exit code."""
    run = load_run(options)
    split = run.splits[options.split]
    recipe, devices = (
        replace(recipe_of(run.config, 1), metrics=(Accuracy(), TopK(), Confusion())),
        Devices.all(),
    )
    batch_size = run.config.eval_batch_size if options.batch_size is None else options.batch_size
    require(batch_size >= 1, f"batch_size={batch_size}: expected at least 1")
    step = devices.compile_eval_step(recipe)

    def evaluated(split: Split) -> Evaluation:
        with working(f"evaluating {len(split):,} images"):
            return evaluate(recipe, devices, step, run.variables, split, batch_size, keep_logits=True)

    values, logits = evaluated(split)
    predictions = np.argmax(logits, axis=1)
    print_evaluation(run, options.split, split, values, int(np.sum(predictions != split.labels)))
    write_evaluation(run, options, split, values)
    write_predictions(options.run / "predictions.csv", split, logits)
    with working("drawing"):
        written = write_pictures(run, split, options.split, predictions, values["confusion_matrix"])
    for picture in written:
        print(f"wrote {picture}")
    validation = run.splits.validation if options.split != "validation" else None
    of_validation = None if validation is None else evaluated(validation).logits
    shown = Evaluated(run.splits, options.split, logits, of_validation, options.weights)
    with working("writing the report"):
        report = write_report(run, read_metrics(run.directory), shown)
    print(f"wrote {report}")
    return 0


def print_evaluation(run: TrainedModel, name: str, split: Split, values: dict[str, Any], mistakes: int) -> None:
    """The numbers, each class's accuracy, and the confusion matrix where it fits a screen."""
    print(f"step {run.step:,}, {name}: {len(split):,} images")
    print("  ".join(show(name, value) for name, value in scalars(values).items()))
    print(f"Overall accuracy: {values['accuracy']:.2%} ({mistakes:,} mistakes in {len(split):,})")
    matrix, classes = values["confusion_matrix"], split.class_names
    small = len(classes) <= 20
    table = Table("true \\ found", box=None, padding=(0, 1))
    for heading in (*(classes if small else ()), "images", "accuracy"):
        table.add_column(Text(heading), justify="right")
    for label, name in enumerate(classes):
        counts = [f"[bold]{n}[/]" if label == found else str(n or ".") for found, n in enumerate(matrix[label])]
        table.add_row(
            Text(name),
            *(counts if small else ()),
            f"{matrix[label].sum():,}",
            f"{values['per_class_accuracy'][label]:.2%}",
        )
    RichConsole(file=sys.stdout, width=WIDE).print(table)


def write_evaluation(run: TrainedModel, options: EvalOptions, split: Split, values: dict[str, Any]) -> None:
    """Write `evaluation.json`. A class without images has no accuracy: null."""
    per_class = {
        name: None if np.isnan(accuracy) else float(accuracy)
        for name, accuracy in zip(split.class_names, values["per_class_accuracy"], strict=True)
    }
    evaluation = {
        "step": run.step,
        "split": options.split,
        "weights": options.weights,
        "examples": len(split),
        **scalars(values),
        "per_class_accuracy": per_class,
        "confusion_matrix": values["confusion_matrix"].tolist(),
    }
    write_json(options.run / "evaluation.json", evaluation)


def write_predictions(path: Path, split: Split, logits: np.ndarray) -> None:
    """Write a row an image: index in the split, label, what was found, how surely, and the file where it is one."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    confidence = (shifted / shifted.sum(axis=1, keepdims=True)).max(axis=1)
    names, files = split.class_names, getattr(split.images, "paths", ())
    with whole(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(("index", "label", "prediction", "confidence", *(("file",) if files else ())))
        for i, (label, found) in enumerate(zip(split.labels, np.argmax(logits, axis=1), strict=True)):
            file_name = (printable(files[i]),) if files else ()
            rows.writerow((i, names[label], names[found], f"{confidence[i]:.6f}", *file_name))
