"""What the runs of a benchmark found, read from their files: by cell, by row, in pairs, and the best of a search."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from jaxclf.benchmark.cells import Cell
from jaxclf.errors import UserError
from jaxclf.io.files import read_json
from jaxclf.reporting.stats import Estimate, estimate, paired_difference
from jaxclf.reporting.tables import Table, Value
from jaxclf.training.checkpoint import score

# What is measured, by split and name in a run's summary.
VALIDATION = ("validation accuracy", "validation loss")
TEST = ("test accuracy", "test loss")
SECONDS = {"compile seconds": "compile_seconds", "training seconds": "train_seconds", "wall seconds": "wall_seconds"}


@dataclass(frozen=True)
class Result:
    """What one finished run found."""

    measures: Mapping[str, float]
    """By split and name. What its config does not measure, or has no images for, is absent."""
    speeds: tuple[float, ...]
    """Images a second in each log interval but the first, in which the run warms up."""
    seconds: Mapping[str, float]


Results = dict[str, dict[int, Result]]
"""By row and seed; of cells that are not finished there are none."""


def read_results(cells: Sequence[Cell]) -> Results:
    """What the finished cells found, by row and seed."""
    results: Results = {cell.row: {} for cell in cells}
    for cell in cells:
        if cell.state == "finished":
            results[cell.row][cell.seed] = read_result(cell)
    return results


def read_result(cell: Cell) -> Result:
    """What the run of a finished cell wrote."""
    summary = read_json(cell.directory.summary)
    found = {measure: summary.get(measure.split()[0]) or {} for measure in VALIDATION + TEST}
    measures = {measure: of_split.get(measure.split()[1], "absent") for measure, of_split in found.items()}
    return Result(
        # JSON has no NaN: a loss that is not a number is null there.
        {name: math.nan if value is None else value for name, value in measures.items() if value != "absent"},
        read_speeds(cell),
        {name: summary[key] for name, key in SECONDS.items()},
    )


def read_speeds(cell: Cell) -> tuple[float, ...]:
    """Images a second in each log interval but the first."""
    path = cell.directory.metrics
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return tuple(row["images_per_second"] for row in rows if row["period"] == "interval")[1:]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged; remove {cell.path}, and the run is made again") from error


def cell_table(cells: Sequence[Cell], results: Results, measures: Sequence[str]) -> Table:
    """A row a cell. One that failed has what it died of."""
    rows = []
    for cell in cells:
        state = f"failed: {cell.error}" if cell.state == "failed" else cell.state
        row: dict[str, Value] = {"config and settings": cell.row, "seed": cell.seed, "state": state}
        result = results[cell.row].get(cell.seed)
        if result is not None:
            row |= {name: result.measures[name] for name in measures if name in result.measures}
            row |= quantiles(result.speeds) | dict(result.seconds)
        rows.append(row)
    return Table("cells", "Cells", rows, as_text)


def result_table(results: Results, measures: Sequence[str]) -> Table:
    """A row a config and setting, over its seeds."""
    title = "Results: mean ± standard deviation [95 % confidence interval of the mean] over n seeds; medians of seconds"
    rows = []
    for name, by_seed in results.items():
        speeds = [speed for result in by_seed.values() for speed in result.speeds]
        seconds = {name: [result.seconds[name] for result in by_seed.values()] for name in SECONDS}
        rows.append(
            {"config and settings": name, "n": len(by_seed)}
            | estimates(by_seed, measures)
            | quantiles(speeds)
            | {name: median(values) for name, values in seconds.items() if values}
        )
    return Table("results", title, rows, as_text)


def estimates(by_seed: Mapping[int, Result], measures: Sequence[str]) -> dict[str, Value]:
    """The mean of each measure that every seed has."""
    return {
        measure: estimate([result.measures[measure] for result in by_seed.values()])
        for measure in measures
        if by_seed and all(measure in result.measures for result in by_seed.values())
    }


def quantiles(speeds: Sequence[float]) -> dict[str, Value]:
    """The speed half of the intervals reach, and that which one in twenty exceeds; of no intervals, nothing."""
    return {f"images per second p{q}": float(np.percentile(speeds, q)) for q in (50, 95) if len(speeds)}


def comparison_table(results: Results, a: str, b: str, measures: Sequence[str]) -> Table:
    """How much more a row measures than another, seed by seed."""
    row: dict[str, Value] = {"difference": f"{a} - {b}", "n": len(results[a].keys() & results[b].keys())}
    for measure in measures:
        first, second = (by_seed(results[name], measure) for name in (a, b))
        if first.keys() & second.keys():
            row[measure] = paired_difference(first, second)
    title = "Comparison, paired by seed: mean ± standard deviation [95 % confidence interval of the mean]"
    return Table("comparison", title, [row], as_text)


def by_seed(results: Mapping[int, Result], measure: str) -> dict[int, float]:
    """A measure of the seeds that have it."""
    return {seed: result.measures[measure] for seed, result in results.items() if measure in result.measures}


def choose(cells: Sequence[Cell], results: Results) -> str | None:
    """The row that is best by validation, among those of which all seeds are finished; None where there is none."""
    whole = [row for row in results if all(cell.state == "finished" for cell in cells if cell.row == row)]
    return max(whole, key=lambda row: validated(results[row]), default=None)


def validated(results: Mapping[int, Result]) -> float:
    """How good the seeds of a row are, in the mean, by what a run's best checkpoint is chosen by."""
    scores = []
    for result in results.values():
        measures = {name.split()[1]: value for name, value in result.measures.items() if name in VALIDATION}
        scores.append(score(measures))
    return float(np.mean(scores))


def choice_table(results: Results, row: str) -> Table:
    """What was chosen by validation, and, now that it is chosen, what it does on test."""
    found: dict[str, Value] = {"chosen by validation": row, "n": len(results[row])}
    return Table("chosen", "Chosen", [found | estimates(results[row], VALIDATION + TEST)], as_text)


def as_text(column: str, value: Value) -> str:
    """A value for people, as its column is read."""
    unit = " %" if column.endswith("accuracy") else ""
    if isinstance(value, Estimate):
        mean, std, low, high = (number(column, each) for each in (value.mean, value.std, value.low, value.high))
        return mean + unit if value.std is None else f"{mean} ± {std}{unit} [{low}, {high}]"
    return number(column, value) + unit if isinstance(value, float) else str(value)


def number(column: str, value: float | None) -> str:
    """A number for people: shares in percent, speeds in whole images."""
    if value is None:
        return ""
    if column.endswith("accuracy"):
        return f"{100 * value:.2f}"
    if column.startswith("images"):
        return f"{value:,.0f}"
    if column.endswith("seconds"):
        return f"{value:.1f}"
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:.4g}"
