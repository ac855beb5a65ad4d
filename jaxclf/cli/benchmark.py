"""Run configs with many seeds and settings, and table what they reach: `python benchmark.py configs/mnist_*.py`."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from jaxclf.benchmark.cells import Cell, run_here, run_on_ray
from jaxclf.benchmark.results import (
    TEST,
    VALIDATION,
    cell_table,
    choice_table,
    choose,
    comparison_table,
    read_results,
    result_table,
)
from jaxclf.cli.benchmark_rows import Row, check_name, check_validation, read_rows
from jaxclf.cli.options import BenchmarkOptions
from jaxclf.errors import require
from jaxclf.io.files import whole, write_text
from jaxclf.io.lock import locked
from jaxclf.io.progress import shown
from jaxclf.reporting.figures import learning_rate_curve, save
from jaxclf.reporting.tables import Table, print_table, to_csv, to_latex, to_markdown
from jaxclf.runs.signals import terminable
from jaxclf.training.devices import Devices
from jaxclf.training.lr_finder import HIGH, LOW, range_test, suggest

UNFINISHED = 4  # exit code where cells have failed


def run(options: BenchmarkOptions) -> int:
    """Parse, run the cells that are not finished, and write what all of them found."""
    rows = plan(options)
    if options.lr_range is not None:
        low, high = options.lr_range or (LOW, HIGH)
        for row in rows.values():
            test_range(options.out / row.name, row, low, high)
        return 0
    cells = [cell for row in rows.values() for cell in row.cells(options.seeds, options.out)]
    # The processes it starts keep the lock too: runs that outlive a benchmark are not begun a second time beside them.
    holder = "a benchmark, or what is left of one that was killed,"
    with locked(options.out, holder, "wait for it to end, or name another --out") as lock:
        run_unfinished(cells, options, lock)
        report(options.out, tables(cells, options))
    return 0 if all(cell.state == "finished" for cell in cells) else UNFINISHED


def plan(options: BenchmarkOptions) -> dict[str, Row]:
    """Read the rows of the benchmark; raises UserError for what cannot be done, before anything starts."""
    check_options(options)
    words = [word for words in options.fields for word in words]
    rows = read_rows(options.configs, words, options.sample, options.imports)
    if options.is_search:
        check_validation(rows)
    for name in options.compare or ():
        check_name(name, rows)
    return rows


def check_options(options: BenchmarkOptions) -> None:
    """Raise UserError for options that ask for nothing, or do not go together."""
    require(bool(options.configs), "no config is named; expected some, such as configs/mnist_linear.py")
    for name in ("seeds", "jobs"):
        require(getattr(options, name) >= 1, f"--{name} {getattr(options, name)}: expected at least 1")
    require(options.ray is None or len(options.ray) < 2, f"--ray {options.ray}: expected one address, or none")
    if options.lr_range is not None:
        others = options.seeds != 1 or options.sample is not None or options.choose or options.compare or options.ray
        require(not others, "--lr-range goes with configs, --set, --out and --import only: it runs no cells")


def run_unfinished(cells: Sequence[Cell], options: BenchmarkOptions, lock: int) -> None:
    """Run the cells that have no result yet, saying how each ends."""
    for cell in cells:
        cell.check()
    again = ("waiting", "failed") if options.retry else ("waiting",)
    left = [cell for cell in cells if cell.state in again]
    print(f"{len(cells):,} cells, {len(left):,} to run", file=sys.stderr)
    if not left:
        return
    if options.ray is None:
        ended = run_here(left, options.jobs, lock)
    else:
        ended = run_on_ray(left, options.jobs, *options.ray or ("local",))
    with terminable(), closing(ended):
        for cell in shown(ended, len(left), "cells"):
            how = f"failed: {cell.error}" if cell.state == "failed" else cell.state
            print(f"{cell.row} seed {cell.seed} {how}", file=sys.stderr)


def tables(cells: Sequence[Cell], options: BenchmarkOptions) -> list[Table]:
    """The tables of a benchmark. Those of a search have no test in them, but for what was chosen."""
    results = read_results(cells)
    measures = VALIDATION if options.is_search else VALIDATION + TEST
    made = [cell_table(cells, results, measures), result_table(results, measures)]
    if options.compare is not None:
        made.append(comparison_table(results, *options.compare, measures))
    if options.is_search and (chosen := choose(cells, results)) is not None:
        made.append(choice_table(results, chosen))
    return made


def report(out: Path, made: Sequence[Table]) -> None:
    """Print the tables and write them: each as CSV, all of them as Markdown and LaTeX."""
    for name in ("comparison", "chosen"):
        (out / f"{name}.csv").unlink(missing_ok=True)  # that of an earlier call
    for table in made:
        print_table(table)
        print()
        write_text(out / f"{table.name}.csv", to_csv(table))
    write_text(out / "results.md", "\n".join(map(to_markdown, made)))
    write_text(out / "results.tex", "\n".join(["% needs \\usepackage{booktabs}", *map(to_latex, made)]))
    print(f"written to {out}")


def test_range(directory: Path, row: Row, low: float, high: float) -> None:
    """Make a learning-rate range test, draw its curve, and say where to search."""
    curve = range_test(row.config, row.config.dataset.load(), Devices.all(), low, high)
    suggestion = suggest(curve)
    directory.mkdir(parents=True, exist_ok=True)
    with whole(directory / "lr_range.csv") as partial, partial.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(("step", "learning_rate", "loss", "smoothed_loss"))
        rows.writerows(zip(range(len(curve.rates)), curve.rates, curve.losses, curve.smoothed, strict=True))
    last = "a tenth of where it diverges" if curve.diverged else "lowest, and never diverging"
    marks = {"steepest descent": suggestion.steepest, last: suggestion.highest}
    figure = learning_rate_curve(
        curve.rates, curve.losses, curve.smoothed, marks, f"Learning-rate range test: {row.name}"
    )
    for name, rate in marks.items():
        print(f"{row.name}: {name} {rate:.2g}")
    print(f"written to {save(figure, directory / 'lr_range.png')}")
