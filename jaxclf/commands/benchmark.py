"""Run configs with many seeds and settings, and table what they reach: `python benchmark.py configs/mnist_*.py`."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from jaxclf.benchmark import (
    TEST,
    VALIDATION,
    cell_table,
    choice_table,
    choose,
    comparison_table,
    read_results,
    result_table,
)
from jaxclf.cells import Cell, run_here, run_on_ray
from jaxclf.commands.cli import Flag, Imports, command, parse
from jaxclf.commands.rows import Row, check_name, check_validation, read_rows
from jaxclf.devices import Devices
from jaxclf.figures import learning_rate_curve, save
from jaxclf.files import whole, write_text
from jaxclf.learning_rate_range import HIGH, LOW, range_test, suggest
from jaxclf.lock import locked
from jaxclf.progress import shown
from jaxclf.signals import terminable
from jaxclf.tables import Table, print_table, to_csv, to_latex, to_markdown
from jaxclf.types import require

UNFINISHED = 4  # exit code where cells have failed


@dataclass(frozen=True)
class BenchmarkOptions:
    """Train every config with every setting and seed, each in a process of its own, and table what they reach.

    Started again, it goes on: what is finished is not run again.
    """

    configs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="CONFIG …")]
    """Python files with get_config(), or names of those that come with jaxclf."""
    seeds: int = 1
    """How many: 0, 1, 2, …"""
    fields: Annotated[
        tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction, tyro.conf.arg(name="set", metavar="FIELD=VALUE,… …")
    ] = ()
    """Fields of the configs and what they are, in every combination; of a tuple, as model.features="16 36,8 8"."""
    sample: int | None = None
    """A random search: so many settings drawn from those of --set, where field=log:low:high is a range as well."""
    choose: Flag = False
    """A search: show what validation says, choose the best by it, and only then show what that one does on test."""
    compare: tuple[str, str] | None = None
    """Two rows, as the tables name them: their difference, paired by seed."""
    lr_range: Annotated[tuple[float, float] | tuple[()] | None, tyro.conf.arg(metavar="[LOW HIGH]")] = None
    """No cells, but a learning-rate range test of each config and setting: a short run in which the rate rises."""
    jobs: int = 1
    """Cells at a time on a machine. Speeds compare only between cells that were run as many at a time."""
    ray: Annotated[tuple[str, ...] | None, tyro.conf.arg(metavar="[ADDRESS]")] = None
    """Run the cells on a Ray cluster that sees the same files; without an address, on one of this machine."""
    retry: Flag = False
    """Run again what has failed."""
    out: Path = Path("runs/benchmark")
    """Directory of the tables and, each in a directory of its own, the runs."""
    imports: Imports = ()
    """Modules of your own that the configs' classes are in."""
    debug: Flag = False
    """Show the traceback of a mistake."""

    @property
    def searches(self) -> bool:
        """Whether the best is to be chosen, and test kept from sight until then."""
        return self.choose or self.sample is not None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return command(benchmark, argv, interrupted="interrupted; started again, the benchmark goes on")


def benchmark(argv: list[str]) -> int:
    """Parse, run the cells that are not finished, and write what all of them found."""
    options, rows = plan(argv)
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


def plan(argv: list[str]) -> tuple[BenchmarkOptions, dict[str, Row]]:
    """What is asked for; raises UserError for what cannot be done, before anything starts."""
    options = parse(BenchmarkOptions, argv, prog="benchmark.py")
    check_options(options)
    words = [word for words in options.fields for word in words]
    rows = read_rows(options.configs, words, options.sample, options.imports)
    if options.searches:
        check_validation(rows)
    for name in options.compare or ():
        check_name(name, rows)
    return options, rows


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
    measures = VALIDATION if options.searches else VALIDATION + TEST
    made = [cell_table(cells, results, measures), result_table(results, measures)]
    if options.compare is not None:
        made.append(comparison_table(results, *options.compare, measures))
    if options.searches and (chosen := choose(cells, results)) is not None:
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


if __name__ == "__main__":
    sys.exit(main())
