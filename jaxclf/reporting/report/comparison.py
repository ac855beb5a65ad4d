"""The page that compares runs: results, differences of their configs, and curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxclf.config_io import flatten
from jaxclf.errors import require
from jaxclf.figures.curves import Rows, Series, select_points
from jaxclf.io.files import read_json
from jaxclf.reporting.report.charts import MAX_POINTS, Chart, draw_chart
from jaxclf.reporting.report.confusions import get_scale_start
from jaxclf.reporting.report.findings import Proportion, measure_proportion
from jaxclf.reporting.report.page import render, write_page
from jaxclf.reporting.report.pictures import THEME
from jaxclf.reporting.report.run_page import format_field
from jaxclf.runs.directory import RunDirectory

# Colors that color-blind readers can tell apart (Okabe and Ito, 2008), and lines for runs beyond their number.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b58900", "#56b4e9", "#7f7f7f")
LINES = {"-": "none", "--": "7 4", ":": "2 3"}  # of matplotlib, and as stroke-dasharray
SECTIONS = {"results": "Results", "differences": "Differences", "curves": "Curves"}
CURVES = {
    "accuracy of validation (of test for a run without)": ("accuracy", ("validation", "test"), "epoch"),
    "loss of validation (of test for a run without)": ("loss", ("validation", "test"), "epoch"),
    "accuracy in training, running mean": ("accuracy", ("train",), "interval"),
    "loss in training, running mean": ("loss", ("train",), "interval"),
}


class ComparedRun(NamedTuple):
    """A finished run, from its files."""

    name: str
    color: str
    line: str
    """Line style of matplotlib."""
    config: dict[str, Any]
    """Fields by their dotted names."""
    summary: dict[str, Any]
    rows: Rows

    @property
    def accuracy(self) -> Proportion | None:
        """Test accuracy; None without test images."""
        test = self.summary.get("test")
        return measure_proportion(test["examples"] - test["mistakes"], test["examples"]) if test else None

    @property
    def loss(self) -> float | None:
        """Test loss; None without test images."""
        return (self.summary.get("test") or {}).get("loss")

    @property
    def style(self) -> str:
        """CSS variables of its color and dashes."""
        return f"--tone:{THEME.get(self.color, self.color)};--dash:{LINES[self.line]}"


def write_comparison(path: Path, runs: Mapping[Path, Rows]) -> Path:
    """Write a page that compares finished runs.

    Args:
        path: The HTML file.
        runs: The rows of metrics.jsonl of each run, by its directory.

    Returns:
        The path.

    Raises:
        UserError: If a directory has no run, or one that is not finished.
    """
    names = [directory.resolve().name for directory in runs]
    if len(set(names)) < len(names):
        names = [str(directory) for directory in runs]
    compared = [_read_run(directory, names[i], i, rows) for i, (directory, rows) in enumerate(runs.items())]
    values = {
        "title": f"{len(runs)} runs",
        "sections": SECTIONS.items(),
        "pixelated": False,
        "runs": compared,
        "scale_start": get_scale_start([run.accuracy for run in compared if run.accuracy]),
        "differences": _find_differences([run.config for run in compared]),
        "charts": _draw_charts(compared),
        "max_points": MAX_POINTS,
    }
    return write_page(path, render("comparison.html", values))


def _read_run(directory: Path, name: str, i: int, rows: Rows) -> ComparedRun:
    """Read the files of a run; raise UserError if there is none or it is not finished."""
    files = RunDirectory(directory)
    require(files.config.is_file(), f"no run at {directory.absolute()}: it has no config.json")
    require(
        files.summary.is_file(), f"{directory.absolute()} is not finished: it has no summary.json; train it to the end"
    )
    color, line = COLORS[i % len(COLORS)], list(LINES)[i // len(COLORS) % len(LINES)]
    return ComparedRun(name, color, line, flatten(read_json(files.config)), read_json(files.summary), rows)


def _find_differences(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the values per run of the fields that differ between configs."""
    fields = dict.fromkeys(field for config in configs for field in config)
    values = {field: [format_field(config[field]) if field in config else "" for config in configs] for field in fields}
    return {field: of_runs for field, of_runs in values.items() if len(set(of_runs)) > 1}


def _draw_charts(runs: Sequence[ComparedRun]) -> list[Chart]:
    """Return a chart per measure with a curve per run; curves are numbered like the runs."""
    charts = []
    for title, (measure, splits, period) in CURVES.items():
        series = []
        for run in runs:
            # The first split that has the measure.
            found = (select_points(run.rows, split, period, measure) for split in splits)
            marker = {"marker": "o", "markersize": 3} if period == "epoch" else {}
            style = {"color": run.color, "linestyle": run.line} | marker
            series.append(Series(run.name, next(filter(None, found), []), style))
        charts += draw_chart(title, measure, series, legend=False)
    return charts
