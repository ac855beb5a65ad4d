"""Tables as CSV, with all digits, and as text for terminals, Markdown and LaTeX."""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from jaxclf.reporting.stats import Estimate

Value = str | int | float | Estimate | None
WIDE = 1_000  # characters: at the width of a terminal, rich would cut off digits
LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    **{character: rf"\{character}" for character in "&%$#_{}"},
}


@dataclass(frozen=True)
class Table:
    """Rows of values by column name. The first column names the row; a row may lack some of the others."""

    name: str
    """One word, the stem of its CSV file."""
    title: str
    """Caption."""
    rows: Sequence[Mapping[str, Value]]
    show: Callable[[str, Value], str]
    """Formats a value, given the name of its column."""

    @property
    def columns(self) -> list[str]:
        """Names of the columns, in order of appearance."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    @property
    def texts(self) -> list[list[str]]:
        """Formatted rows; a missing value is empty."""
        return [[self.show(name, row[name]) if name in row else "" for name in self.columns] for row in self.rows]


def to_csv(table: Table) -> str:
    """Convert a table to CSV with all digits.

    Args:
        table: The table. An estimate becomes four columns: mean, std, and the ends of its interval, low and high.

    Returns:
        The text of the file, with a header.
    """
    rows = [dict(part for name, value in row.items() for part in _expand_value(name, value)) for row in table.rows]
    file = io.StringIO()
    writer = csv.DictWriter(file, dict.fromkeys(name for row in rows for name in row), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def _expand_value(column: str, value: Value) -> list[tuple[str, Any]]:
    """Return the columns of a value in CSV, whose names have no spaces."""
    name = re.sub(r"\W+", "_", column)
    if not isinstance(value, Estimate):
        return [(name, value)]
    return [(f"{name}_{part}", getattr(value, part)) for part in ("mean", "std", "low", "high")]


def to_markdown(table: Table) -> str:
    """Convert a table to Markdown, under its title."""
    rows = [table.columns, *table.texts]
    rows = [[cell.replace("\\", "\\\\").replace("|", "\\|") for cell in row] for row in rows]
    rows.insert(1, ["---", *["---:"] * (len(table.columns) - 1)])
    return "\n".join([table.title, "", *(f"| {' | '.join(row)} |" for row in rows), ""])


def to_latex(table: Table) -> str:
    """Convert a table to LaTeX with its title as the caption. It needs the package booktabs."""
    head, *rows = (" & ".join(map(escape_latex, row)) + r" \\" for row in (table.columns, *table.texts))
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{escape_latex(table.title)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}",
            *(r"\toprule", head, r"\midrule", *rows, r"\bottomrule"),
            *(r"\end{tabular}", r"\end{table}", ""),
        ]
    )


def escape_latex(text: str) -> str:
    """Escape the special characters of LaTeX."""
    return "".join(LATEX.get(character, character) for character in text)


def print_table(table: Table) -> None:
    """Print a table under its title on standard output."""
    print_rows(table.columns, table.texts, table.title)


def print_rows(headings: Sequence[str], rows: Sequence[Sequence[str | Text]], title: str = "") -> None:
    """Print rows of text on standard output, the first column left-aligned and the others right-aligned."""
    shown = RichTable(title=Text(title), title_justify="left", box=None, padding=(0, 1))
    for i, heading in enumerate(headings):
        shown.add_column(Text(heading), justify="right" if i else "left")
    for row in rows:
        shown.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    Console(file=sys.stdout, width=WIDE).print(shown)
