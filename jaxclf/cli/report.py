"""`jaxclf report`: compare runs on one page."""

from __future__ import annotations

from jaxclf.cli.options import ReportOptions
from jaxclf.errors import require
from jaxclf.reporting.report.comparison import write_comparison
from jaxclf.runs.directory import RunDirectory, read_metrics


def run(options: ReportOptions) -> int:
    """Read the runs and write the page; return the exit code."""
    runs = {path: read_metrics(RunDirectory(path)) for path in options.runs}
    require(len(runs) > 1, f"{len(runs)} run; name two or more: jaxclf report runs/a runs/b")
    print(f"wrote {write_comparison(options.output, runs)}")
    return 0
