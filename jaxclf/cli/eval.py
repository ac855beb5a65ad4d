"""`jaxclf eval`: evaluate a trained run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.text import Text
from scipy.special import softmax

from jaxclf.augment import TestTime
from jaxclf.cli.load_run import load_run_with_data
from jaxclf.cli.options import EvalOptions
from jaxclf.datasets.folders import to_printable
from jaxclf.errors import require
from jaxclf.inference.trained_model import TrainedModel
from jaxclf.io.files import write_json, write_rows
from jaxclf.io.formatting import format_percent, format_value
from jaxclf.io.progress import show_status
from jaxclf.metrics import Accuracy, TopK, compute_recalls
from jaxclf.reporting.report import EvaluatedSplit, write_report
from jaxclf.reporting.run_figures import write_figures
from jaxclf.reporting.tables import print_rows
from jaxclf.runs.directory import read_metrics
from jaxclf.training.devices import Devices
from jaxclf.training.evaluation import Evaluation, evaluate
from jaxclf.training.step_config import build_step_config
from jaxclf.training.writers import select_scalars
from jaxclf.types import Split

MAX_PRINTED = 20  # classes of a confusion matrix that fits into a terminal
MAX_WRITTEN = 1000  # classes of the largest confusion matrix that is written as JSON, a million numbers


def run(options: EvalOptions) -> int:
    """Load a run, evaluate a split, print and write the results; return the exit code."""
    run, output = load_run_with_data(options)
    require(options.top >= 1, f"top={options.top}: expected at least 1")
    values, evaluated = evaluate_run(run, options.split, options.weights, options.batch_size, options.tta, options.top)
    split, predictions = evaluated.split, evaluated.predictions
    _print_evaluation(run, values, evaluated)
    _write_evaluation(output / "evaluation.json", run, options, values, evaluated)
    _write_predictions(output / "predictions.csv", evaluated)
    with show_status("drawing"):
        written = write_figures(output, run, split, options.split, predictions, evaluated.matrix)
    for figure in written:
        print(f"wrote {figure}")
    with show_status("writing the report"):
        report = write_report(run, read_metrics(run.directory), evaluated, output / "report.html")
    print(f"wrote {report}")
    return 0


def evaluate_run(
    run: TrainedModel,
    name: str,
    weights: Literal["ema", "raw"],
    batch_size: int | None = None,
    tta: TestTime | None = None,
    top: int = 5,
) -> tuple[dict[str, Any], EvaluatedSplit]:
    """Evaluate a split, and the validation images.

    Args:
        run: The trained model.
        name: Name of the split.
        weights: Which of its parameters the run was loaded with.
        batch_size: Images per batch, at most; by default the config's.
        tta: Test-time augmentation, over which logits are averaged.
        top: Number of most probable classes for the accuracy besides that of the first.

    Returns:
        The loss and metrics of the split by name, and what a report of it needs.

    Raises:
        UserError: If the run has no such split.
    """
    split, validation = run.splits[name], run.splits.validation
    step_config = replace(build_step_config(run.config, 1), metrics=(Accuracy(), TopK(top)), tta=tta)
    devices = Devices.all()
    size = run.eval_batch_size if batch_size is None else batch_size
    require(size >= 1, f"batch_size={size}: expected at least 1")
    step = devices.compile_eval_step(step_config)

    def evaluate_split(split: Split) -> Evaluation:
        with show_status(f"evaluating {len(split):,} images"):
            return evaluate(step_config, devices, step, run.variables, split, size, keep_logits=True)

    values, logits = evaluate_split(split)
    held_out = None if validation is None or name == "validation" else evaluate_split(validation).logits
    return values, EvaluatedSplit(run.splits, name, logits, held_out, weights)


def _print_evaluation(run: TrainedModel, values: dict[str, Any], evaluated: EvaluatedSplit) -> None:
    """Print the metrics, each class's accuracy and, for a few classes, the confusion matrix."""
    split, classes = evaluated.split, evaluated.split.class_names
    mistakes = int(np.sum(evaluated.predictions != split.labels))
    print(f"step {run.step:,}, {evaluated.name}: {len(split):,} images")
    print("  ".join(format_value(name, value) for name, value in select_scalars(values).items()))
    print(f"Overall accuracy: {values['accuracy']:.2%} ({mistakes:,} mistakes in {len(split):,})")
    few = len(classes) <= MAX_PRINTED
    matrix = evaluated.matrix.toarray() if few else np.empty((len(classes), 0), np.int64)
    support, recalls = evaluated.matrix.sum(axis=1), compute_recalls(evaluated.matrix)
    rows = []
    for label, name in enumerate(classes):
        if not few and not support[label]:
            continue  # a network of many classes may be evaluated on images of some of them
        counts = [Text(str(n), "bold") if label == i else str(n or ".") for i, n in enumerate(matrix[label])]
        rows.append([name, *counts, f"{support[label]:,}", format_percent(recalls[label])])
    print_rows(["true \\ predicted", *(classes if few else ()), "images", "accuracy"], rows)


def _write_evaluation(
    path: Path, run: TrainedModel, options: EvalOptions, values: dict[str, Any], evaluated: EvaluatedSplit
) -> None:
    """Write `evaluation.json`. The accuracy of a class without images is null, and so is a large confusion matrix.

    `tta` and the options of another dataset are in it only if they are given.
    """
    split, recalls = evaluated.split, compute_recalls(evaluated.matrix)
    per_class = {
        name: None if np.isnan(recall) else float(recall)
        for name, recall in zip(split.class_names, recalls, strict=True)
    }
    evaluation = {
        "step": run.step,
        "split": options.split,
        "weights": options.weights,
        **({"tta": options.tta} if options.tta else {}),
        **({"dataset": options.dataset} if options.dataset else {}),
        "examples": len(split),
        **select_scalars(values),
        "per_class_accuracy": per_class,
        "confusion_matrix": evaluated.matrix.toarray().tolist() if len(recalls) <= MAX_WRITTEN else None,
    }
    write_json(path, evaluation)


def _write_predictions(path: Path, evaluated: EvaluatedSplit) -> None:
    """Write a CSV row per image: index, label, prediction, confidence and, for image files, the path."""
    split, confidence = evaluated.split, softmax(evaluated.logits, axis=1).max(axis=1)
    names, files = split.class_names, getattr(split.images, "paths", ())
    rows = (
        (i, names[label], names[predicted], f"{confidence[i]:.6f}", *((to_printable(files[i]),) if files else ()))
        for i, (label, predicted) in enumerate(zip(split.labels, evaluated.predictions, strict=True))
    )
    write_rows(path, ("index", "label", "prediction", "confidence", *(("file",) if files else ())), rows)
