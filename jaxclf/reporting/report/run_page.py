"""The report of a run: what was run, on what data, what came of it and what it looks like."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxclf.config_io import flatten, to_json
from jaxclf.inference.trained_model import TrainedModel
from jaxclf.io.files import read_json
from jaxclf.reporting.calibration import BINS, Reliability
from jaxclf.reporting.figures.confusion import COUNTED, MOST, signed_shares
from jaxclf.reporting.figures.curves import CURVES, Rows, points
from jaxclf.reporting.report.charts import Chart, Series, chart
from jaxclf.reporting.report.examples import examples
from jaxclf.reporting.report.explained import images_and_maps
from jaxclf.reporting.report.findings import (
    Calibration,
    ClassRow,
    Evaluated,
    Share,
    calibration,
    class_rows,
    confused_pairs,
    data_card,
    scaled,
    share,
)
from jaxclf.reporting.report.page import number, percent, rendered, write_page

LIMIT = 4_900_000  # bytes of a page
BROAD = 12  # classes; a matrix of more takes the width of the page
SMALL = 40  # pixels; images up to this size are shown with square pixels
SECTIONS = {
    "results": "Results",
    "curves": "Curves",
    "confusion": "Confusion",
    "classes": "Classes",
    "mistakes": "Mistakes",
    "calibration": "Calibration",
    "saliency": "Saliency",
    "data": "Data",
    "run": "Run",
}


def write_report(run: TrainedModel, rows: Rows, evaluated: Evaluated) -> Path:
    """Write `report.html` into the run's directory, from rows of its metrics.jsonl and what its network found."""
    values = about_run(run, rows, evaluated) | about_results(run, evaluated) | images_and_maps(run, evaluated)
    room = LIMIT - len(rendered("report.html", values | {"examples": {}}))
    page = rendered("report.html", values | {"examples": examples(evaluated, room)})
    return write_page(run.directory.path / "report.html", page)


def about_run(run: TrainedModel, rows: Rows, evaluated: Evaluated) -> dict[str, Any]:
    """What was run, on what, and how it went."""
    config = to_json(run.config)
    summary = read_json(run.directory.summary) if run.directory.summary.exists() else None
    environment = read_json(run.directory.environment) if run.directory.environment.exists() else {}
    facts = {name: value for name, value in (summary or {}).items() if not isinstance(value, dict)}
    about_weights = {"ema": ", with the running mean of its weights", "raw": ", with its weights as they are"}
    tables = {"Config": flatten(config), "Training": facts, "Environment": flatten(environment)}
    return {
        "title": run.directory.path.resolve().name,
        "sections": SECTIONS.items(),
        "pixelated": max(run.image_shape[:2]) <= SMALL,
        "run": run,
        "summary": summary,
        "model": class_name(config["model"]),
        "dataset": class_name(config["dataset"]),
        "weights": about_weights[evaluated.weights] if run.config.ema_decay else "",
        "data": data_card(evaluated.splits),
        "charts": training_charts(rows),
        "curve_names": [(series.name, series.style) for series in training_series(rows, "loss")],
        "tables": [(heading, {name: in_words(value) for name, value in of.items()}) for heading, of in tables.items()],
    }


def class_name(component: Mapping[str, Any]) -> str:
    """The name of a component's class, from its JSON."""
    return component["class"].rpartition(".")[2]


def in_words(value: Any) -> str:
    """A value of a config or a summary as it is written there, long numbers cut."""
    if isinstance(value, float):
        return f"{value:,.6g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def training_series(rows: Rows, measure: str) -> list[Series]:
    """One measure of every split against epochs. What is absent or was not finite is left out."""
    series = []
    for (split, period), (name, _) in CURVES.items():
        known = points(rows, split, period, measure)
        if known:
            series.append(Series(name, split, known))
    return series


def training_charts(rows: Rows) -> list[Chart]:
    """Accuracy and loss in training, as far as there are rows of them."""
    both = {"accuracy": percent_tick, "loss": lambda value: f"{value:.4g}"}
    drawn = [chart(measure, "epoch", training_series(rows, measure), show) for measure, show in both.items()]
    return [each for each in drawn if each is not None]


def percent_tick(value: float) -> str:
    """A share in percent, with the digits it needs."""
    return f"{100 * value:.4g}%"


def about_results(run: TrainedModel, evaluated: Evaluated) -> dict[str, Any]:
    """What was measured of the split."""
    names, matrix = evaluated.split.class_names, evaluated.matrix
    accuracy = share(int(np.trace(matrix)), int(matrix.sum()))
    measured, after = calibration(evaluated.logits, evaluated.split.labels), scaled(evaluated)
    classes = class_rows(matrix, names)
    return {
        "name": evaluated.name,
        "class_names": list(names),
        "accuracy": accuracy,
        "mistake_count": accuracy.n - int(np.trace(matrix)),
        "calibration": measured,
        "scaled": after,
        "unscaled": why_unscaled(evaluated),
        "bins": bin_rows(measured.bins),
        "scaled_bins": bin_rows(after.calibration.bins) if after else [],
        "results": [*result_rows(evaluated.name, accuracy, measured), *other_rows(run, evaluated)],
        "cells": shaded(matrix) if len(matrix) <= MOST else [],
        "counted": COUNTED,
        "turned": max(map(len, names)) > 2,
        "broad": len(names) > BROAD,
        "pairs": confused_pairs(matrix),
        "support": matrix.sum(axis=1).tolist(),
        "classes": classes,
        "means": class_means(classes),
        "floor": floor_of([each for row in classes for each in (row.precision, row.recall, row.f1)]),
    }


def why_unscaled(evaluated: Evaluated) -> str:
    """Why there is no temperature."""
    if evaluated.name == "validation":
        return "There is no temperature scaling here: it is fitted on just these validation images."
    return "There is no temperature scaling: it is fitted on validation images, and there are none."


def result_rows(split: str, accuracy: Share, measured: Calibration) -> list[dict[str, Any]]:
    """What was measured of the split, with intervals."""
    rows = [{"measure": "accuracy", "value": percent(accuracy.value), "interval": limits(accuracy)}]
    for name, mean in (("log loss (NLL)", measured.loss), ("Brier score", measured.brier)):
        interval = "" if mean.low is None else f"{number(mean.low)} to {number(mean.high)}"
        rows.append({"measure": name, "value": number(mean.mean), "interval": interval})
    rows.append({"measure": f"calibration error (ECE, {BINS} bins)", "value": percent(measured.error), "interval": ""})
    return [row | {"split": split, "n": accuracy.n} for row in rows]


def limits(found: Share) -> str:
    """Where the interval of a share begins and ends."""
    return f"{percent(found.low)} to {percent(found.high)}"


def other_rows(run: TrainedModel, evaluated: Evaluated) -> list[dict[str, Any]]:
    """What training measured of the other splits, where it was of the same weights."""
    summary = read_json(run.directory.summary) if run.directory.summary.exists() else {}
    rows = []
    for key, name in (("train", "train"), ("train_full", "train"), ("validation", "validation"), ("test", "test")):
        found = summary.get(key) if summary.get("steps") == run.step and name != evaluated.name else None
        if found and found.get("accuracy") is not None:
            n = len(evaluated.splits[name])
            running = key == "train"
            interval = "" if running else limits(share(round(found["accuracy"] * n), n))
            row = {"measure": "accuracy", "value": percent(found["accuracy"]), "interval": interval}
            rows.append(row | {"split": "train, while training" if running else name, "n": n})
    return rows


def bin_rows(bins: Reliability) -> list[dict[str, Any]]:
    """The bins of a reliability diagram; `weight` says how many images are in one."""
    most = max(int(bins.examples.max()), 1)
    return [
        {
            "low": place / BINS,
            "high": (place + 1) / BINS,
            "count": int(count),
            "confidence": float(confidence),
            "accuracy": float(accuracy),
            "weight": round(0.25 + 0.65 * math.sqrt(count / most), 2),
        }
        for place, (count, confidence, accuracy) in enumerate(zip(*bins, strict=True))
    ]


def shaded(matrix: np.ndarray) -> list[list[tuple[int, float]]]:
    """Counts [true, found] with how deep their colour is, from 0 to 1."""
    shades = np.abs(signed_shares(matrix))
    return [list(zip(*row, strict=True)) for row in zip(matrix.tolist(), shades.tolist(), strict=True)]


def class_means(classes: Sequence[ClassRow]) -> dict[str, float | None]:
    """Precision, recall and F1, each class counting alike; those that have none do not count."""

    def mean(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known else None

    return {
        "precision": mean([row.precision.value for row in classes]),
        "recall": mean([row.recall.value for row in classes]),
        "f1": mean([row.f1.value for row in classes]),
    }


def floor_of(shares: Sequence[Share]) -> float:
    """Where a scale of shares begins, a tenth, so that every interval is on it."""
    known = [each.low for each in shares if each.value is not None]
    return min(math.floor(10 * min(known)) / 10, 0.9) if known else 0.0
