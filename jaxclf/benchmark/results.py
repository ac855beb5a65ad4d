"""Results of a benchmark, read from the files of its runs, and the tables made of them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jaxclf.benchmark.cells import Cell
from jaxclf.errors import UserError
from jaxclf.io.files import read_json
from jaxclf.reporting.stats import Estimate, estimate, estimate_paired_difference
from jaxclf.reporting.tables import Table, Value
from jaxclf.training.checkpoint import score

# Metrics by split and name, as in summary.json.
VALIDATION = ("validation accuracy", "validation loss")
TEST = ("test accuracy", "test loss")
SECONDS = {"compile seconds": "compile_seconds", "training seconds": "train_seconds", "wall seconds": "wall_seconds"}


@dataclass(frozen=True)
class Result:
    """Result of one finished run."""

    metrics: Mapping[str, float]
    """Final metrics by split and name; those that the run has not computed are missing."""
    speeds: tuple[float, ...]
    """Images per second of each log interval, without the first one, which includes warm-up."""
    seconds: Mapping[str, float]


Results = dict[str, dict[int, Result]]
"""Results of the finished cells, by variant and seed."""


def read_results(cells: Sequence[Cell]) -> Results:
    """Read the results of the finished cells.

    Args:
        cells: Cells in any state.

    Returns:
        The results by variant and seed; a variant without a finished cell has none.

    Raises:
        UserError: If the metrics file of a finished run is damaged.
    """
    results: Results = {cell.variant: {} for cell in cells}
    for cell in cells:
        if cell.state == "finished":
            results[cell.variant][cell.seed] = read_result(cell)
    return results


def read_result(cell: Cell) -> Result:
    """Read the result of a finished cell."""
    summary = read_json(cell.directory.summary)
    metrics = {}
    for metric in VALIDATION + TEST:
        split, name = metric.split()
        values = summary.get(split) or {}
        if name in values:
            # JSON has no NaN: summary.json has null in its place.
            metrics[metric] = math.nan if values[name] is None else values[name]
    return Result(metrics, _read_speeds(cell), {name: summary[key] for name, key in SECONDS.items()})


def _read_speeds(cell: Cell) -> tuple[float, ...]:
    """Read the images per second of each log interval but the first."""
    path = cell.directory.metrics
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return tuple(row["images_per_second"] for row in rows if row["period"] == "interval")[1:]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged; remove {cell.path} to repeat the run") from error


def build_cell_table(cells: Sequence[Cell], results: Results, metrics: Sequence[str]) -> Table:
    """Build the table with one row per cell: its state or error, and its result."""
    rows = []
    for cell in cells:
        state = f"failed: {cell.error}" if cell.state == "failed" else cell.state
        row: dict[str, Value] = {"config and settings": cell.variant, "seed": cell.seed, "state": state}
        result = results[cell.variant].get(cell.seed)
        if result is not None:
            row |= {name: result.metrics[name] for name in metrics if name in result.metrics}
            row |= _compute_percentiles(result.speeds) | dict(result.seconds)
        rows.append(row)
    return Table("cells", "Cells", rows, format_entry)


def build_result_table(results: Results, metrics: Sequence[str]) -> Table:
    """Build the table with one row per variant: statistics over its seeds."""
    title = "Results: mean ± standard deviation [95 % confidence interval of the mean] over n seeds; median seconds"
    rows = []
    for variant, by_seed in results.items():
        speeds = [speed for result in by_seed.values() for speed in result.speeds]
        seconds = {name: [result.seconds[name] for result in by_seed.values()] for name in SECONDS}
        rows.append(
            {"config and settings": variant, "n": len(by_seed)}
            | _estimate_metrics(by_seed, metrics)
            | _compute_percentiles(speeds)
            | {name: float(np.median(values)) for name, values in seconds.items() if values}
        )
    return Table("results", title, rows, format_entry)


def build_comparison_table(results: Results, a: str, b: str, metrics: Sequence[str]) -> Table:
    """Build the table of the differences `a - b` between two variants, paired by seed."""
    row: dict[str, Value] = {"difference": f"{a} - {b}", "n": len(results[a].keys() & results[b].keys())}
    for metric in metrics:
        first, second = (
            {seed: result.metrics[metric] for seed, result in results[variant].items() if metric in result.metrics}
            for variant in (a, b)
        )
        if first.keys() & second.keys():
            row[metric] = estimate_paired_difference(first, second)
    title = "Comparison, paired by seed: mean ± standard deviation [95 % confidence interval of the mean]"
    return Table("comparison", title, [row], format_entry)


def build_choice_table(results: Results, variant: str) -> Table:
    """Build the table of the variant that was chosen by validation, with its test results."""
    row: dict[str, Value] = {"chosen by validation": variant, "n": len(results[variant])}
    return Table("chosen", "Chosen", [row | _estimate_metrics(results[variant], VALIDATION + TEST)], format_entry)


def choose_best(cells: Sequence[Cell], results: Results) -> str | None:
    """Choose the variant with the best mean validation score.

    Args:
        cells: All cells of the benchmark.
        results: The results of those that are finished.

    Returns:
        The best variant among those with all seeds finished; None if there is none.
    """
    finished = [name for name in results if all(cell.state == "finished" for cell in cells if cell.variant == name)]
    return max(finished, key=lambda name: _compute_validation_score(results[name]), default=None)


def _compute_validation_score(by_seed: Mapping[int, Result]) -> float:
    """Return the mean over seeds of the score by which a run chooses its best checkpoint."""
    scores = []
    for result in by_seed.values():
        scores.append(score({name.split()[1]: value for name, value in result.metrics.items() if name in VALIDATION}))
    return float(np.mean(scores))


def _estimate_metrics(by_seed: Mapping[int, Result], metrics: Sequence[str]) -> dict[str, Value]:
    """Estimate the mean of each metric that all seeds have."""
    return {
        metric: estimate([result.metrics[metric] for result in by_seed.values()])
        for metric in metrics
        if by_seed and all(metric in result.metrics for result in by_seed.values())
    }


def _compute_percentiles(speeds: Sequence[float]) -> dict[str, Value]:
    """Return the median and the 95th percentile of images per second; nothing if there is no interval."""
    return {f"images per second p{q}": float(np.percentile(speeds, q)) for q in (50, 95) if len(speeds)}


def format_entry(column: str, value: Value) -> str:
    """Format a table entry for reading, according to its column."""
    unit = " %" if column.endswith("accuracy") else ""
    if isinstance(value, Estimate):
        mean, std, low, high = (_format_number(column, each) for each in (value.mean, value.std, value.low, value.high))
        return mean + unit if value.std is None else f"{mean} ± {std}{unit} [{low}, {high}]"
    return _format_number(column, value) + unit if isinstance(value, float) else str(value)


def _format_number(column: str, value: float | None) -> str:
    """Format a number without its unit: accuracy in percent, speed in whole images."""
    if value is None:
        return ""
    if column.endswith("accuracy"):
        return f"{100 * value:.2f}"
    if column.startswith("images"):
        return f"{value:,.0f}"
    if column.endswith("seconds"):
        return f"{value:.1f}"
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:.4g}"
