"""Tables: full numbers for programs (CSV), short ones for people (terminal, Markdown, LaTeX)."""

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
WIDE = 1_000  # columns; cut to a terminal's, a table would lose digits
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
    """Rows of values by column. A row need not have every column; the first names the row."""

    name: str
    """One word: that of its CSV file."""
    title: str
    """What it shows, and how the numbers are to be read."""
    rows: Sequence[Mapping[str, Value]]
    show: Callable[[str, Value], str]
    """The text of a value, by its column."""

    @property
    def columns(self) -> list[str]:
        """The names of the columns, in the order in which the rows have them."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    @property
    def texts(self) -> list[list[str]]:
        """The rows as people read them; what a row does not have is empty."""
        return [[self.show(name, row[name]) if name in row else "" for name in self.columns] for row in self.rows]


def to_csv(table: Table) -> str:
    """The values in full. An estimate takes four columns: mean, std, and where its interval begins and ends."""
    rows = [
        {name: value for part in map(in_csv, row, row.values()) for name, value in part.items()} for row in table.rows
    ]
    file = io.StringIO()
    writer = csv.DictWriter(file, dict.fromkeys(name for row in rows for name in row), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def in_csv(column: str, value: Value) -> dict[str, Any]:
    """A value by the names of its columns in CSV, which have no spaces."""
    name = re.sub(r"\W+", "_", column)
    if not isinstance(value, Estimate):
        return {name: value}
    return {f"{name}_{part}": getattr(value, part) for part in ("mean", "std", "low", "high")}


def to_markdown(table: Table) -> str:
    """The texts as a Markdown table under its title."""
    rows = [table.columns, *table.texts]
    rows = [[cell.replace("\\", "\\\\").replace("|", "\\|") for cell in row] for row in rows]
    rows.insert(1, ["---", *["---:"] * (len(table.columns) - 1)])
    return "\n".join([table.title, "", *(f"| {' | '.join(row)} |" for row in rows), ""])


def to_latex(table: Table) -> str:
    """The texts as a LaTeX table under its title; it needs the package booktabs."""
    head, *rows = (" & ".join(map(escaped, row)) + r" \\" for row in (table.columns, *table.texts))
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{escaped(table.title)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}",
            *(r"\toprule", head, r"\midrule", *rows, r"\bottomrule"),
            *(r"\end{tabular}", r"\end{table}", ""),
        ]
    )


def escaped(text: str) -> str:
    """Text as LaTeX sets it."""
    return "".join(LATEX.get(character, character) for character in text)


def print_table(table: Table) -> None:
    """Print the texts under the title, on standard output."""
    shown = RichTable(title=Text(table.title), title_justify="left", box=None, padding=(0, 1))
    for place, name in enumerate(table.columns):
        shown.add_column(Text(name), justify="right" if place else "left")
    for row in table.texts:
        shown.add_row(*map(Text, row))
    Console(file=sys.stdout, width=WIDE).print(shown)
