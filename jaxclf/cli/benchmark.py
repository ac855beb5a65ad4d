"""Train configs with several seeds and settings and tabulate the results: `jaxclf benchmark configs/mnist_*.py`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from jaxclf.benchmark.cells import Cell, run_locally, run_on_ray
from jaxclf.benchmark.results import (
    TEST,
    VALIDATION,
    build_cell_table,
    build_choice_table,
    build_comparison_table,
    build_result_table,
    choose_best,
    read_results,
)
from jaxclf.cli.benchmark_variants import Variant, build_variants, check_folds, check_name, check_validation
from jaxclf.cli.options import BenchmarkOptions
from jaxclf.datasets import load_splits
from jaxclf.errors import require
from jaxclf.figures import plot_learning_rate_curve, save
from jaxclf.inference.initial_variables import load_initial_variables
from jaxclf.io.files import write_rows, write_text
from jaxclf.io.lock import lock_directory
from jaxclf.io.progress import track_progress
from jaxclf.reporting.tables import Table, print_table, to_csv, to_latex, to_markdown
from jaxclf.runs.signals import handle_sigterm
from jaxclf.training.devices import Devices
from jaxclf.training.lr_finder import HIGH, LOW, run_range_test, suggest_rates

EXIT_UNFINISHED = 4


def run(options: BenchmarkOptions) -> int:
    """Run the cells that are not finished and write the tables of all; return the exit code."""
    variants = plan(options)
    if options.lr_range is not None:
        low, high = options.lr_range or (LOW, HIGH)
        for variant in variants.values():
            _write_range_test(options.out / variant.name, variant, low, high)
        return 0
    cells = [
        cell for variant in variants.values() for cell in variant.make_cells(options.seeds, options.out, options.folds)
    ]
    # Subprocesses inherit the lock, so that runs that outlive a killed benchmark are not started a second time.
    holder = "another benchmark, or by runs that a killed one has left"
    with lock_directory(options.out, holder, "wait for it to end, or name another --out") as lock:
        _run_unfinished(cells, options, lock)
        _write_tables(options.out, _build_tables(cells, options))
    return 0 if all(cell.state == "finished" for cell in cells) else EXIT_UNFINISHED


def plan(options: BenchmarkOptions) -> dict[str, Variant]:
    """Return the variants by name. Raise UserError for options that are wrong, before any run starts."""
    _check_options(options)
    words = [word for words in options.fields for word in words]
    variants = build_variants(options.configs, words, options.sample, options.imports)
    if options.folds:
        check_folds(variants, options.folds, options.seeds)
    elif options.is_search:
        check_validation(variants)
    for name in options.compare or ():
        check_name(name, variants)
    return variants


def _check_options(options: BenchmarkOptions) -> None:
    """Raise UserError for options out of range or incompatible with each other."""
    require(bool(options.configs), "no config is named; expected some, such as configs/mnist_linear.py")
    for name in ("seeds", "jobs"):
        require(getattr(options, name) >= 1, f"--{name} {getattr(options, name)}: expected at least 1")
    require(options.ray is None or len(options.ray) < 2, f"--ray {options.ray}: expected one address, or none")
    if options.lr_range is not None:
        others = ("seeds", "sample", "choose", "folds", "compare", "jobs", "ray", "retry")
        given = [f"--{name}" for name in others if getattr(options, name) != getattr(BenchmarkOptions, name)]
        require(
            not given,
            f"--lr-range can be combined with --set, --out and --import only, as it runs no cells; remove "
            f"{', '.join(given)}",
        )


def _run_unfinished(cells: Sequence[Cell], options: BenchmarkOptions, lock: int) -> None:
    """Run the cells that have no result yet and print the outcome of each."""
    for cell in cells:
        cell.check()
    states = ("waiting", "failed") if options.retry else ("waiting",)
    pending = [cell for cell in cells if cell.state in states]
    print(f"{len(cells):,} cells, {len(pending):,} to run", file=sys.stderr)
    if not pending:
        return
    if options.ray is None:
        ended = run_locally(pending, options.jobs, lock)
    else:
        ended = run_on_ray(pending, options.jobs, *options.ray or ("local",))
    with handle_sigterm(), closing(ended):
        for cell in track_progress(ended, len(pending), "cells"):
            outcome = f"failed: {cell.error}" if cell.state == "failed" else cell.state
            print(f"{cell.variant} seed {cell.seed} {outcome}", file=sys.stderr)


def _build_tables(cells: Sequence[Cell], options: BenchmarkOptions) -> list[Table]:
    """Build the tables of a benchmark. A search shows test results of the chosen variant only."""
    results = read_results(cells)
    metrics = VALIDATION if options.is_search else VALIDATION + TEST
    tables = [build_cell_table(cells, results, metrics), build_result_table(results, metrics)]
    if options.compare is not None:
        tables.append(build_comparison_table(results, *options.compare, metrics))
    if options.is_search and (chosen := choose_best(cells, results)) is not None:
        tables.append(build_choice_table(results, chosen))
    return tables


def _write_tables(out: Path, tables: Sequence[Table]) -> None:
    """Print the tables and write each as CSV and all of them as Markdown and LaTeX."""
    for name in ("comparison", "chosen"):
        (out / f"{name}.csv").unlink(missing_ok=True)  # left by an earlier call with other options
    for table in tables:
        print_table(table)
        print()
        write_text(out / f"{table.name}.csv", to_csv(table))
    write_text(out / "results.md", "\n".join(map(to_markdown, tables)))
    write_text(out / "results.tex", "\n".join(["% needs \\usepackage{booktabs}", *map(to_latex, tables)]))
    print(f"written to {out}")


def _write_range_test(directory: Path, variant: Variant, low: float, high: float) -> None:
    """Run a learning-rate range test, write its curve and print the suggested learning rates."""
    config, splits = variant.config, load_splits(variant.config.dataset)
    curve = run_range_test(config, splits, Devices.all(), low, high, load_initial_variables(config, splits))
    suggestion = suggest_rates(curve)
    directory.mkdir(parents=True, exist_ok=True)
    rows = zip(range(len(curve.rates)), curve.rates, curve.losses, curve.smoothed, strict=True)
    write_rows(directory / "lr_range.csv", ("step", "learning_rate", "loss", "smoothed_loss"), rows)
    highest = "a tenth of where it diverges" if curve.diverged else "lowest loss (it does not diverge)"
    marks = {"steepest descent": suggestion.steepest, highest: suggestion.highest}
    title = f"Learning-rate range test: {variant.name}"
    figure = plot_learning_rate_curve(curve.rates, curve.losses, curve.smoothed, marks, title)
    for name, rate in marks.items():
        print(f"{variant.name}: {name} {rate:.2g}")
    print(f"written to {save(figure, directory / 'lr_range.png')}")
