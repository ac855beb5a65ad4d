"""The results of `jaxclf probe`: their summary, the table of accuracies, and the page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxclf.figures import plot_learning_curve
from jaxclf.inference.features.selection import PENALTIES
from jaxclf.inference.features.study import Study
from jaxclf.io.formatting import format_percent
from jaxclf.reporting.report.charts import Chart
from jaxclf.reporting.report.confusions import describe_confusions
from jaxclf.reporting.report.examples import describe_image, render_with_examples
from jaxclf.reporting.report.findings import EvaluatedSplit, find_worst_mistakes, summarize_data
from jaxclf.reporting.report.page import write_page
from jaxclf.reporting.report.pictures import to_svg
from jaxclf.reporting.stats import Estimate, estimate, estimate_proportion_interval
from jaxclf.types import Splits

SHOWN = 24  # mistakes on the page
SECTIONS = {
    "results": "Results",
    "choice": "Learning curve and penalty",
    "confusion": "Confusion matrix",
    "classes": "Classes",
    "mistakes": "Mistakes",
    "data": "Data",
}


class Accuracy(NamedTuple):
    """A row of the table of accuracies."""

    classifier: str
    measured_on: str
    text: str
    """The accuracy with its 95 % interval."""
    n: str


def summarize_study(study: Study, splits: Splits) -> dict[str, Any]:
    """Return the results of a study as JSON data.

    Args:
        study: The study.
        splits: The images that were studied.
    """
    tests = [each.test for each in study.seeds]
    images = len(splits["test"])
    low, high = estimate_proportion_interval(round(tests[0] * images), images)
    validations = [each.validation for each in study.seeds]
    return {
        "images": {name: len(split) for name, split in splits.items() if split is not None},
        "test": {"accuracy": float(np.mean(tests)), "images": images, "low": low, "high": high, "accuracies": tests},
        "nested": _describe_estimate(study.nested),
        "neighbors": {
            "count": study.neighbors,
            "test": study.neighbors_test,
            "nested": _describe_estimate(study.neighbors_nested),
            "probe_minus_neighbors": _describe_estimate(study.nested - study.neighbors_nested),
        },
        "penalties": [each.penalty for each in validations],
        "cross_validation": {
            f"{penalty:.3g}": {
                "loss": float(np.mean([each.losses[i] for each in validations])),
                "accuracy": float(np.mean([each.accuracies[i] for each in validations])),
            }
            for i, penalty in enumerate(PENALTIES)
        },
        "learning_curve": {str(size): _describe_estimate(accuracies) for size, accuracies in study.curve.items()},
    }


def _describe_estimate(values: Float[np.ndarray, " n"]) -> dict[str, Any]:
    """Return the mean of values with its 95 % interval, as JSON data."""
    estimated: Estimate = estimate(values.tolist())
    return {"mean": estimated.mean, "low": estimated.low, "high": estimated.high, "n": estimated.n}


def list_accuracies(summary: Mapping[str, Any]) -> list[Accuracy]:
    """Return the table of accuracies with their intervals from the data of `summarize_study`."""
    test, nested, neighbors = summary["test"], summary["nested"], summary["neighbors"]
    images, folds = test["images"], f"{nested['n']} folds"
    low, high = estimate_proportion_interval(round(neighbors["test"] * images), images)
    of_neighbors = {"mean": neighbors["test"], "low": low, "high": high}
    nearest = "nearest neighbor" if neighbors["count"] == 1 else f"{neighbors['count']} nearest neighbors"
    return [
        Accuracy("linear probe", "nested folds", _format_mean(nested), folds),
        Accuracy("linear probe", "test", _format_mean({**test, "mean": test["accuracy"]}), f"{images:,} images"),
        Accuracy(nearest, "nested folds", _format_mean(neighbors["nested"]), folds),
        Accuracy(nearest, "test", _format_mean(of_neighbors), f"{images:,} images"),
        Accuracy("probe minus neighbors", "nested folds", _format_mean(neighbors["probe_minus_neighbors"]), "paired"),
    ]


def _format_mean(estimated: Mapping[str, Any]) -> str:
    """Format a mean with its interval, if it has one."""
    mean = format_percent(estimated["mean"])
    if estimated["low"] is None:
        return mean
    return f"{mean} [{format_percent(estimated['low'])}, {format_percent(estimated['high'])}]"


def write_probe_page(
    path: Path, summary: Mapping[str, Any], study: Study, splits: Splits, logits: Float[np.ndarray, "n classes"]
) -> Path:
    """Write the page of a study.

    Args:
        path: The HTML file.
        summary: What summary.json holds.
        study: The study.
        splits: The images that were studied.
        logits: Logits of the test images, of the probe of the first seed.

    Returns:
        The path.
    """
    evaluated = EvaluatedSplit(splits, "test", logits)
    values = describe_confusions(evaluated) | {
        "title": Path(summary["folder"]).resolve().name,
        "sections": SECTIONS.items(),
        "pixelated": False,
        "summary": summary,
        "accuracies": list_accuracies(summary),
        "curve": [Chart("Learning curve", to_svg(plot_learning_curve(study.curve, "")))] if study.curve else [],
        "penalties": _list_penalties(summary),
        "mistakes": _describe_mistakes(evaluated),
        "data": summarize_data(splits),
    }
    return write_page(path, render_with_examples("probe.html", values, evaluated))


def _list_penalties(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what cross-validation found for each penalty, and how many seeds chose it."""
    chosen = [f"{penalty:.3g}" for penalty in summary["penalties"]]
    return [
        {"penalty": penalty, "chosen": chosen.count(penalty), **found}
        for penalty, found in summary["cross_validation"].items()
    ]


def _describe_mistakes(evaluated: EvaluatedSplit) -> list[dict[str, Any]]:
    """Return the mistakes with the highest losses, with their files."""
    indices = find_worst_mistakes(evaluated, SHOWN)
    files = [file.path for file in evaluated.splits.files if file.split == evaluated.name]
    images = evaluated.split.images[indices] if len(indices) else ()
    return [
        {**describe_image(evaluated, int(i), image), "file": files[i]} for i, image in zip(indices, images, strict=True)
    ]
