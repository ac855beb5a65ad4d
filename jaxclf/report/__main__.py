"""Compare runs on one page: `python -m jaxclf.report runs/mnist_cnn runs/mnist_linear`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from jaxclf.commands.cli import Flag, command, parse
from jaxclf.report.comparison import write_comparison
from jaxclf.run import RunDirectory, read_metrics
from jaxclf.types import require


@dataclass(frozen=True)
class ReportOptions:
    """Compare finished runs on one page: results, configs, curves."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Directories of two runs or more."""
    output: Path = Path("comparison.html")
    """The page."""
    debug: Flag = False
    """Show the traceback of a mistake."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return command(compare, argv, interrupted="interrupted")


def compare(argv: list[str]) -> int:
    """Read the runs and write the page."""
    options = parse(ReportOptions, argv, prog="python -m jaxclf.report")
    runs = {path: read_metrics(RunDirectory(path)) for path in options.runs}
    require(len(runs) > 1, f"{len(runs)} run; name two or more: python -m jaxclf.report runs/a runs/b")
    print(f"wrote {write_comparison(options.output, runs)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
