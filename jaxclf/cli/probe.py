"""`jaxclf probe photographs --bundle lite0 --workdir runs/probe`: classify a folder by the features of a network."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxclf.cli.load_run import load_folder
from jaxclf.cli.options import ProbeOptions
from jaxclf.errors import require
from jaxclf.figures import plot_learning_curve, save
from jaxclf.inference.features.cache import compute_split_features
from jaxclf.inference.features.selection import Labeled, check_nested, scale_features
from jaxclf.inference.features.study import study_features
from jaxclf.io.files import write_json, write_rows
from jaxclf.io.formatting import format_percent
from jaxclf.io.progress import show_status
from jaxclf.reporting.report.probe_page import list_accuracies, summarize_study, write_probe_page
from jaxclf.reporting.tables import print_rows
from jaxclf.types import Splits


def run(options: ProbeOptions) -> int:
    """Run `jaxclf probe`; return the exit code."""
    began = time.perf_counter()
    network, splits = load_folder(options)
    require(splits.test is not None, "the folder has no test images; add a folder test or val")
    check_nested(splits.train.labels, options.folds)  # too few images are an error before the features are computed
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
    settings = {
        "bundle": str(options.bundle),
        "folder": options.folder,
        "folds": options.folds,
        "seeds": options.seeds,
    }
    summary = {
        **settings,
        **summarize_study(study, splits),
        "features": train.shape[1],
        "feature_seconds": computed - began,
        "wall_seconds": time.perf_counter() - began,
    }
    _print_results(summary)
    options.workdir.mkdir(parents=True, exist_ok=True)
    write_json(options.workdir / "summary.json", summary)
    logits = study.probe.compute_logits(test)[0]
    _write_predictions(options.workdir / "predictions.csv", splits, logits)
    if study.curve:
        title = f"linear probe, {options.seeds} seeds: mean, lowest and highest"
        save(plot_learning_curve(study.curve, title), options.workdir / "learning_curve.png")
    with show_status("writing the page"):
        write_probe_page(options.workdir / "probe.html", summary, study, splits, logits)
    for path in sorted(options.workdir.iterdir()):
        print(f"wrote {path}")
    return 0


def _print_results(summary: Mapping[str, Any]) -> None:
    """Print accuracies with their intervals."""
    print_rows(("classifier", "measured on", "accuracy", "n"), list_accuracies(summary))
    test = summary["test"]
    interval = f"{format_percent(test['low'])} to {format_percent(test['high'])}"
    print(f"Overall accuracy: {test['accuracy']:.2%} (95 % interval of the first seed: {interval})")


def _write_predictions(path: Path, splits: Splits, logits: Float[np.ndarray, "n classes"]) -> None:
    """Write a CSV row for each test image: file, label and prediction of the probe of the first seed."""
    names, files = splits.train.class_names, [file.path for file in splits.files if file.split == "test"]
    predicted = logits.argmax(axis=1)
    rows = ((file, names[i], names[j]) for file, i, j in zip(files, splits["test"].labels, predicted, strict=True))
    write_rows(path, ("file", "label", "prediction"), rows)
