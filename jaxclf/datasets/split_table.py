"""Tables of image files: a row per file with its class and its split, as CSV or JSON lines."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from jaxclf.datasets.folders import to_printable
from jaxclf.datasets.layout import SPLIT_NAMES, ListedFile, parse_split
from jaxclf.errors import UserError, require
from jaxclf.io.files import write_rows
from jaxclf.types import FileRecord

PATH_COLUMNS = ("path", "file_name", "file")  # the second is that of Hugging Face's metadata.csv
LABEL_COLUMNS = ("label", "class")
COLUMNS = ("path", "label", "split", "sha256")  # of the tables that runs keep


def read_split_table(table: Path, root: Path) -> dict[str, list[ListedFile]]:
    """Read a table with a row per image.

    Args:
        table: A CSV file with a header, or a JSON-lines file (.jsonl, .ndjson). Its columns are `path` or `file_name`,
            relative to `root` or to the table; `label` or `class`, by default the name of the image's folder; and
            `split`, by default the first folder of the path that has the name of a split.
        root: The folder of the images.

    Returns:
        The files of each class, sorted by class and path.

    Raises:
        UserError: If a column is missing, or a row has no file, label or known split.
    """
    listed, faults = [], []
    for number, row in _read_rows(table):
        named = _get_cell(row, PATH_COLUMNS)
        path = next((place / named for place in (root, table.parent) if named and (place / named).is_file()), None)
        label = _get_cell(row, LABEL_COLUMNS) or (to_printable(path.parent.name) if path else "")
        split = parse_split(row["split"]) if row.get("split") else _find_split(named)
        if path is None:
            faults.append(f"line {number}: no file {named or '(empty)'}")
        elif row.get("split") and split is None:
            faults.append(f"line {number}: split {row['split']!r}; expected one of {', '.join(SPLIT_NAMES)}")
        else:
            listed.append(ListedFile(path, label, split))
    if faults:
        raise UserError(f"{len(faults):,} rows of {table} cannot be used:", faults)
    require(bool(listed), f"{table} lists no images")
    with_split = sum(each.split is not None for each in listed)
    require(
        with_split in (0, len(listed)), f"{table}: {len(listed) - with_split:,} rows have no split; give all or none"
    )
    twice = len(listed) - len({each.path for each in listed})
    require(not twice, f"{table} lists {twice:,} files twice; list each once")
    classes: dict[str, list[ListedFile]] = {label: [] for label in sorted({each.label for each in listed})}
    for each in sorted(listed):
        classes[each.label].append(each)
    return classes


def _find_split(path: str) -> str | None:
    """Return the split that a folder of a path has the name of, such as "train" for "train/cats/1.jpg"."""
    return next((split for folder in Path(path).parts[:-1] if (split := parse_split(folder))), None)


def _read_rows(table: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Yield the number of each line and its cells by column."""
    try:
        text = table.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeError) as error:
        raise UserError(f"cannot read {table}: {error}") from error
    if table.suffix.lower() in (".jsonl", ".ndjson"):
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                yield number, _parse_json_row(table, number, line)
        return
    reader = csv.DictReader(io.StringIO(text, newline=""))
    columns = reader.fieldnames or ()
    require(
        any(name in columns for name in PATH_COLUMNS),
        f"{table} has the columns {', '.join(columns) or '(none)'}; expected path (or file_name), label and split",
    )
    yield from ((reader.line_num, {name: cell or "" for name, cell in row.items() if name}) for row in reader)


def _parse_json_row(table: Path, number: int, line: str) -> Mapping[str, str]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UserError(f"{table}, line {number}: no JSON ({error})") from error
    require(isinstance(row, dict), f"{table}, line {number}: expected an object with path, label and split")
    return {name: "" if cell is None else str(cell) for name, cell in row.items()}


def _get_cell(row: Mapping[str, str], columns: Sequence[str]) -> str:
    return next((row[name] for name in columns if row.get(name)), "")


def write_records(path: Path, records: Sequence[FileRecord]) -> None:
    """Write which file is in which split; `read_split_table` can read it."""
    write_rows(path, COLUMNS, records)


def read_records(path: Path) -> tuple[FileRecord, ...]:
    """Read what `write_records` has written; nothing if there is no such file."""
    if not path.exists():
        return ()
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        require(tuple(header) == COLUMNS, f"{path} has other columns than {', '.join(COLUMNS)}")
        return tuple(FileRecord(*row) for row in rows)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}); put back the file of the run") from error
