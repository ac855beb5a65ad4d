"""`jaxclf probe photographs --bundle lite0 --workdir runs/probe`: classify a folder by the features of a network."""

from __future__ import annotations

import csv
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from jaxclf.cli.load_run import make_default_folder, override_dataset
from jaxclf.cli.options import ProbeOptions
from jaxclf.datasets import load_splits
from jaxclf.errors import require
from jaxclf.inference.bundle import check_free
from jaxclf.inference.features.cache import compute_split_features
from jaxclf.inference.features.folds import draw_folds
from jaxclf.inference.features.selection import PENALTIES, Labeled, scale_features
from jaxclf.inference.features.study import Study, study_features
from jaxclf.inference.import_weights import locate_run
from jaxclf.inference.trained_model import TrainedModel
from jaxclf.io.files import atomic_write, write_json
from jaxclf.io.formatting import format_percent
from jaxclf.io.progress import show_status
from jaxclf.reporting.figures import plot_learning_curve, save
from jaxclf.reporting.stats import Estimate, estimate, estimate_proportion_interval
from jaxclf.reporting.tables import print_rows
from jaxclf.training.devices import keep_compiled
from jaxclf.types import Splits


def run(options: ProbeOptions) -> int:
    """Run `jaxclf probe`; return the exit code."""
    began = time.perf_counter()
    check_free(options.workdir)
    keep_compiled(options.compilation_cache)
    network = TrainedModel.load(locate_run(options.bundle))
    splits = _load_splits(options, network)
    draw_folds(splits.train.labels, options.folds, 0)  # too few images are an error before the features are computed
    features = compute_split_features(network, splits)
    computed = time.perf_counter()
    names = splits.train.class_names
    with show_status("fitting probes"):
        train, test = scale_features(features["train"], features["test"])
        study = study_features(
            Labeled(train, splits.train.labels, len(names)),
            Labeled(test, splits["test"].labels, len(names)),
            options.folds,
            options.seeds,
        )
    summary = _summarize(options, splits, study) | {
        "features": train.shape[1],
        "feature_seconds": computed - began,
        "wall_seconds": time.perf_counter() - began,
    }
    _print_results(summary)
    options.workdir.mkdir(parents=True, exist_ok=True)
    write_json(options.workdir / "summary.json", summary)
    _write_predictions(options.workdir / "predictions.csv", splits, study.probe.compute_logits(test)[0])
    if study.curve:
        title = f"linear probe, {options.seeds} seeds: mean, lowest and highest"
        save(plot_learning_curve(study.curve, title), options.workdir / "learning_curve.png")
    for path in sorted(options.workdir.iterdir()):
        print(f"wrote {path}")
    return 0


def _load_splits(options: ProbeOptions, network: TrainedModel) -> Splits:
    """Load the folder of the options. Without splits of its author, a fifth of every class is for testing."""
    folder = replace(make_default_folder(network), root=options.folder, train_fraction=0.8, test_fraction=0.2)
    splits = load_splits(override_dataset(folder, options.dataset))
    for remark in splits.remarks:
        print(remark)
    require(splits.test is not None, "the folder has no test images; add a folder test or val")
    return splits


def _summarize(options: ProbeOptions, splits: Splits, study: Study) -> dict[str, Any]:
    """Return what summary.json holds."""
    tests = [each.test for each in study.seeds]
    images = len(splits["test"])
    low, high = estimate_proportion_interval(round(tests[0] * images), images)
    difference = estimate(list(study.nested - study.neighbors_nested))
    return {
        "bundle": str(options.bundle),
        "folder": options.folder,
        "folds": options.folds,
        "seeds": options.seeds,
        "images": {name: len(split) for name, split in splits.items() if split is not None},
        "test": {"accuracy": float(np.mean(tests)), "images": images, "low": low, "high": high, "accuracies": tests},
        "nested": _describe_estimate(estimate(list(study.nested))),
        "neighbors": {
            "count": study.neighbors,
            "test": study.neighbors_test,
            "nested": _describe_estimate(estimate(list(study.neighbors_nested))),
            "probe_minus_neighbors": _describe_estimate(difference),
        },
        "penalties": [each.validation.penalty for each in study.seeds],
        "cross_validation": {
            f"{penalty:.3g}": {
                "loss": float(np.mean([each.validation.losses[i] for each in study.seeds])),
                "accuracy": float(np.mean([each.validation.accuracies[i] for each in study.seeds])),
            }
            for i, penalty in enumerate(PENALTIES)
        },
        "learning_curve": {
            str(size): _describe_estimate(estimate(list(accuracies))) for size, accuracies in study.curve.items()
        },
    }


def _describe_estimate(estimated: Estimate) -> dict[str, Any]:
    """Return a mean with its 95 % interval, as JSON data."""
    return {"mean": estimated.mean, "low": estimated.low, "high": estimated.high, "n": estimated.n}


def _print_results(summary: dict[str, Any]) -> None:
    """Print accuracies with their intervals."""
    test, nested, neighbors = summary["test"], summary["nested"], summary["neighbors"]
    rows = [
        ("linear probe", "nested folds", _format_mean(nested), f"{nested['n']} folds"),
        ("linear probe", "test", format_percent(test["accuracy"]), f"{test['images']:,} images"),
        (
            f"{neighbors['count']} nearest neighbors",
            "nested folds",
            _format_mean(neighbors["nested"]),
            f"{nested['n']} folds",
        ),
        (
            f"{neighbors['count']} nearest neighbors",
            "test",
            format_percent(neighbors["test"]),
            f"{test['images']:,} images",
        ),
        ("probe minus neighbors", "nested folds", _format_mean(neighbors["probe_minus_neighbors"]), "paired"),
    ]
    print_rows(("classifier", "measured on", "accuracy", "n"), rows)
    interval = f"{format_percent(test['low'])} to {format_percent(test['high'])}"
    print(f"Overall accuracy: {test['accuracy']:.2%} (95 % interval of the first seed: {interval})")


def _format_mean(estimated: dict[str, Any]) -> str:
    """Format a mean with its interval."""
    interval = (
        f" [{format_percent(estimated['low'])}, {format_percent(estimated['high'])}]" if estimated["n"] > 1 else ""
    )
    return f"{format_percent(estimated['mean'])}{interval}"


def _write_predictions(path: Path, splits: Splits, logits: np.ndarray) -> None:
    """Write a CSV row for each test image: file, label and prediction of the probe of the first seed."""
    names, files = splits.train.class_names, [file.path for file in splits.files if file.split == "test"]
    with atomic_write(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(("file", "label", "prediction"))
        for name, label, predicted in zip(files, splits["test"].labels, logits.argmax(axis=1), strict=True):
            rows.writerow((name, names[label], names[predicted]))
