"""Tables: what is written is read back, by a CSV reader, from Markdown and from LaTeX."""

import csv
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxclf.reporting.stats import Estimate, estimate
from jaxclf.reporting.tables import LATEX, Table, escape_latex, print_table, to_csv, to_latex, to_markdown

FOUND = Estimate(0.25, 3, 0.125, 0.5)
ROWS = [{"row": "a_b", "n": 1}, {"row": "c|d", "accuracy": FOUND, "n": 2}]
texts = st.text(st.characters(min_codepoint=32, exclude_categories=["C", "Z"]), min_size=1)


def table(rows):
    return Table(
        "some", "Some 50 %", rows, lambda column, value: f"<{value.mean}>" if column == "accuracy" else str(value)
    )


def cells(line):
    """The cells of a line of Markdown."""
    parts = re.split(r"(?<!\\)(?:\\\\)*\|", line)
    return [re.sub(r"\\(.)", r"\1", part.strip()) for part in parts[1:-1]]


def unescaped(text):
    """What LaTeX sets."""
    for character, command in LATEX.items():
        if command.endswith("{}") or command.startswith("$"):
            text = text.replace(command, f"\0{ord(character)}\0")
    text = re.sub(r"\\(.)", r"\1", text)
    return re.sub("\0(\\d+)\0", lambda match: chr(int(match[1])), text)


def test_an_estimate_takes_four_columns_of_csv_and_rows_need_not_have_all():
    first, second = csv.DictReader(io.StringIO(to_csv(table(ROWS))))
    assert list(second) == ["row", "n", "accuracy_mean", "accuracy_std", "accuracy_low", "accuracy_high"]
    assert second["row"] == "c|d"
    assert [float(second[f"accuracy_{part}"]) for part in ("mean", "std", "low", "high")] == [0.25, 0.125, -0.25, 0.75]
    assert first == dict.fromkeys(second, "") | {"row": "a_b", "n": "1"}


@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=5), texts)
def test_csv_gives_every_number_back_to_the_bit(drawn, name):
    written = to_csv(table([{"row": name, "images/s p50": value} for value in drawn]))
    rows = list(csv.DictReader(io.StringIO(written, newline="")))
    assert [float(row["images_s_p50"]) for row in rows] == drawn
    assert {row["row"] for row in rows} == {name}


def test_what_is_unknown_of_one_value_is_empty():
    (row,) = csv.DictReader(io.StringIO(to_csv(table([{"accuracy": estimate([0.5])}]))))
    assert row == {"accuracy_mean": "0.5", "accuracy_std": "", "accuracy_low": "", "accuracy_high": ""}


@given(st.lists(texts, min_size=1, max_size=4))
def test_markdown_gives_every_text_back(names):
    title, _, head, rule, *rows = to_markdown(table([{"row": name, "n": 3} for name in names])).splitlines()
    assert (title, cells(head), cells(rule)) == ("Some 50 %", ["row", "n"], ["---", "---:"])
    assert [cells(row) for row in rows] == [[name, "3"] for name in names]


@given(st.text())
def test_latex_gives_every_text_back(text):
    assert unescaped(escape_latex(text)) == text


def test_latex_is_a_booktabs_table():
    lines = to_latex(table(ROWS)).splitlines()
    assert lines == [
        r"\begin{table}",
        r"\caption{Some 50 \%}",
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r"row & n & accuracy \\",
        r"\midrule",
        r"a\_b & 1 &  \\",
        r"c\textbar{}d & 2 & \textless{}0.25\textgreater{} \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]


@pytest.mark.parametrize("character", "&%$#_{}~^\\<>|±")
def test_no_character_that_latex_takes_for_a_command_is_left(character):
    assert escape_latex(character) != character
    assert escape_latex(f"a{character}b") == f"a{escape_latex(character)}b"


def test_a_wide_table_is_not_cut(capsys):
    print_table(table([{"row": "x" * 300, "[bold]": "y" * 300}]))
    printed = capsys.readouterr().out
    assert "x" * 300 in printed
    assert "y" * 300 in printed
    assert "[bold]" in printed
