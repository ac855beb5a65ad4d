"""The report of a run: its config and data, its results, and examples of its predictions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxclf.config_io import flatten, to_json
from jaxclf.figures import plot_reliability
from jaxclf.figures.curves import Rows
from jaxclf.inference.trained_model import TrainedModel
from jaxclf.io.files import read_json
from jaxclf.io.formatting import format_number, format_percent
from jaxclf.reporting.calibration import BINS
from jaxclf.reporting.report.charts import MAX_POINTS, Chart, draw_training_charts
from jaxclf.reporting.report.confusions import describe_confusions
from jaxclf.reporting.report.examples import render_with_examples
from jaxclf.reporting.report.explained import explain_images
from jaxclf.reporting.report.findings import (
    Calibration,
    EvaluatedSplit,
    Proportion,
    measure_calibration,
    measure_proportion,
    scale_temperature,
    summarize_data,
)
from jaxclf.reporting.report.page import write_page
from jaxclf.reporting.report.pictures import to_svg
from jaxclf.training.user_code import explain_out_of_memory

SMALL = 40  # pixels; images up to this size are shown with square pixels
SECTIONS = {
    "results": "Results",
    "curves": "Curves",
    "confusion": "Confusion matrix",
    "classes": "Classes",
    "mistakes": "Mistakes",
    "calibration": "Calibration",
    "saliency": "Saliency",
    "data": "Data",
    "run": "Run",
}
WEIGHTS = {"ema": ", with the moving average of its weights", "raw": ", with its weights without averaging"}


def write_report(run: TrainedModel, rows: Rows, evaluated: EvaluatedSplit, path: Path | None = None) -> Path:
    """Write the page of a run.

    Args:
        run: The trained model.
        rows: Rows of its metrics.jsonl.
        evaluated: The evaluated split.
        path: The HTML file; by default, report.html in the directory of the run.

    Returns:
        The path of the page, a file of at most 5 MB that needs no network.
    """
    summary = read_json(run.directory.summary) if run.directory.summary.exists() else {}
    values = _describe_run(run, summary, rows, evaluated) | _describe_results(run, summary, evaluated)
    with explain_out_of_memory("the saliency maps of the report", "all else is written"):
        values |= explain_images(run, evaluated)
    page = render_with_examples("report.html", values, evaluated)
    return write_page(path or run.directory.path / "report.html", page)


def _describe_run(
    run: TrainedModel, summary: Mapping[str, Any], rows: Rows, evaluated: EvaluatedSplit
) -> dict[str, Any]:
    """Return the config, the data and the course of training."""
    config, is_bundle = to_json(run.config), run.config.dataset is None
    environment = read_json(run.directory.environment) if run.directory.environment.exists() else {}
    facts = {name: value for name, value in summary.items() if not isinstance(value, dict)}
    tables = {"Config": flatten(config), "Training": facts, "Environment": flatten(environment)}
    return {
        "title": run.directory.path.resolve().name,
        "sections": [(id, heading) for id, heading in SECTIONS.items() if id != "curves" or not is_bundle],
        "is_bundle": is_bundle,
        "pixelated": max(run.image_shape[:2]) <= SMALL,
        "run": run,
        "summary": summary,
        "model": config["model"]["class"].rpartition(".")[2],
        "dataset": "Images" if is_bundle else config["dataset"]["class"].rpartition(".")[2],
        "weights": WEIGHTS[evaluated.weights] if run.config.ema_decay else "",
        "data": summarize_data(evaluated.splits),
        "charts": draw_training_charts(rows),
        "max_points": MAX_POINTS,
        "tables": [(name, {field: format_field(value) for field, value in of.items()}) for name, of in tables.items()],
    }


def format_field(value: Any) -> str:
    """Format a value of a config or a summary; long numbers are rounded."""
    if isinstance(value, float):
        return f"{value:,.6g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _describe_results(run: TrainedModel, summary: Mapping[str, Any], evaluated: EvaluatedSplit) -> dict[str, Any]:
    """Return what was measured on the split."""
    # The images of pretrained weights may be of a few of their classes.
    confusions = describe_confusions(evaluated, present_only=run.config.dataset is None)
    accuracy = confusions["accuracy"]
    calibration = measure_calibration(evaluated.logits, evaluated.split.labels)
    scaled = scale_temperature(evaluated)
    diagrams = {"before scaling": calibration}
    if scaled:
        diagrams |= {f"after scaling, T = {format_number(scaled.temperature)}": scaled.calibration}
    return confusions | {
        "calibration": calibration,
        "scaled": scaled,
        "bins": BINS,
        "diagrams": [Chart(title, to_svg(plot_reliability(each.reliability))) for title, each in diagrams.items()],
        "results": [
            *_list_results(evaluated.name, accuracy, calibration),
            *_list_other_accuracies(run, summary, evaluated),
        ],
    }


def _list_results(split: str, accuracy: Proportion, calibration: Calibration) -> list[dict[str, Any]]:
    """Return the rows of the table of results, with intervals."""
    rows = [{"measure": "accuracy", "value": format_percent(accuracy.value), "interval": _format_interval(accuracy)}]
    for name, mean in (("log loss (NLL)", calibration.loss), ("Brier score", calibration.brier)):
        interval = "" if mean.low is None else f"{format_number(mean.low)} to {format_number(mean.high)}"
        rows.append({"measure": name, "value": format_number(mean.mean), "interval": interval})
    ece = {"measure": f"calibration error (ECE, {BINS} bins)", "value": format_percent(calibration.error)}
    return [row | {"split": split, "n": accuracy.n} for row in (*rows, ece | {"interval": ""})]


def _format_interval(proportion: Proportion) -> str:
    """Format the ends of an interval."""
    return f"{format_percent(proportion.low)} to {format_percent(proportion.high)}"


def _list_other_accuracies(
    run: TrainedModel, summary: Mapping[str, Any], evaluated: EvaluatedSplit
) -> list[dict[str, Any]]:
    """Return rows with the accuracies of other splits in summary.json, if they are of the same weights."""
    rows = []
    for key, name in (("train", "train"), ("train_full", "train"), ("validation", "validation"), ("test", "test")):
        found = summary.get(key) if summary.get("steps") == run.step and name != evaluated.name else None
        if found and found.get("accuracy") is not None:
            n = len(evaluated.splits[name])
            running = key == "train"  # measured with weights that were changing, so without an interval
            interval = "" if running else _format_interval(measure_proportion(round(found["accuracy"] * n), n))
            row = {"measure": "accuracy", "value": format_percent(found["accuracy"]), "interval": interval}
            rows.append(row | {"split": "train, running mean" if running else name, "n": n})
    return rows
