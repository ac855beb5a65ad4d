"""Runs beside each other: what they reached, in what they differ, and their curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxclf.config_io import flatten
from jaxclf.errors import require
from jaxclf.io.files import read_json
from jaxclf.reporting.figures.curves import Rows, points
from jaxclf.reporting.report.charts import Chart, Series, chart
from jaxclf.reporting.report.findings import share
from jaxclf.reporting.report.page import rendered, write_page
from jaxclf.reporting.report.run_page import floor_of, in_words, percent_tick
from jaxclf.runs.directory import RunDirectory

COLOURS = 7
DASHES = ("", " dashed", " dotted")  # where there are more runs than colours
SECTIONS = {"results": "Results", "differences": "Differences", "curves": "Curves"}
CURVES = {
    "accuracy of validation (of test, where a run has none)": ("accuracy", ("validation", "test"), "epoch"),
    "loss of validation (of test, where a run has none)": ("loss", ("validation", "test"), "epoch"),
    "accuracy in training, running": ("accuracy", ("train",), "interval"),
    "loss in training, running": ("loss", ("train",), "interval"),
}


class Compared(NamedTuple):
    """A finished run as its files tell of it."""

    name: str
    style: str  # the CSS class of its colour
    config: dict[str, Any]  # flat
    summary: dict[str, Any]
    rows: Rows


def write_comparison(path: Path, runs: Mapping[Path, Rows]) -> Path:
    """Write a page that compares finished runs: their directories, with the rows of their metrics.jsonl."""
    names = short_names(list(runs))
    compared = [read(place, names[i], i, rows) for i, (place, rows) in enumerate(runs.items())]
    accuracies = [accuracy_of(run.summary) for run in compared]
    values = {
        "title": f"{len(runs)} runs",
        "sections": SECTIONS.items(),
        "pixelated": False,
        "runs": [run._asdict() | {"accuracy": found} for run, found in zip(compared, accuracies, strict=True)],
        "losses": [(run.summary.get("test") or {}).get("loss") for run in compared],
        "floor": floor_of([found for found in accuracies if found]),
        "differences": differences([run.config for run in compared]),
        "curve_names": [(run.name, run.style) for run in compared],
        "charts": curves(compared),
    }
    return write_page(path, rendered("comparison.html", values))


def short_names(directories: Sequence[Path]) -> list[str]:
    """The names of directories, or their paths where two have the same."""
    names = [directory.resolve().name for directory in directories]
    return names if len(set(names)) == len(names) else [str(directory) for directory in directories]


def read(directory: Path, name: str, place: int, rows: Rows) -> Compared:
    """A run from its files; raises UserError where there is none, or it is not finished."""
    files = RunDirectory(directory)
    require(files.config.is_file(), f"no run at {directory.absolute()}: it has no config.json")
    require(
        files.summary.is_file(), f"{directory.absolute()} is not finished: it has no summary.json; train it to the end"
    )
    style = f"run-{place % COLOURS}{DASHES[place // COLOURS % len(DASHES)]}"
    return Compared(name, style, flatten(read_json(files.config)), read_json(files.summary), rows)


def accuracy_of(summary: Mapping[str, Any]) -> Any:
    """The test accuracy of a run as a share, or None where it has no test images."""
    test = summary.get("test")
    return share(test["examples"] - test["mistakes"], test["examples"]) if test else None


def differences(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """The values, a run each, of the fields that are not the same in all configs."""
    fields = dict.fromkeys(field for config in configs for field in config)
    values = {field: [in_words(config[field]) if field in config else "" for config in configs] for field in fields}
    return {field: of_runs for field, of_runs in values.items() if len(set(of_runs)) > 1}


def curves(runs: Sequence[Compared]) -> list[Chart]:
    """A chart a measure, with a curve a run."""
    drawn = []
    for title, (measure, splits, period) in CURVES.items():
        series = [Series(run.name, run.style, first_points(run.rows, measure, splits, period)) for run in runs]
        show = percent_tick if measure == "accuracy" else lambda value: f"{value:.4g}"
        drawn.append(chart(title, "epoch", series, show))
    return [each for each in drawn if each is not None]


def first_points(rows: Rows, measure: str, splits: Sequence[str], period: str) -> list[tuple[float, float]]:
    """A measure against epochs, of the first of some splits that has it."""
    return next((known for split in splits if (known := points(rows, split, period, measure))), [])
