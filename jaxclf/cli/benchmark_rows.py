"""The rows of a benchmark: configs with settings, each under one word."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote_plus

from jaxclf.benchmark.cells import Cell
from jaxclf.benchmark.grid import Setting, draw, grid, read_fields
from jaxclf.cli.train_options import TrainOptions, parse_train, suggest_flag
from jaxclf.config import Config
from jaxclf.config_io import flatten, to_json
from jaxclf.errors import UserError, require


@dataclass(frozen=True)
class Row:
    """A config with a setting, under one word: that of its directory, and of its row in the tables."""

    name: str
    config: Config
    arguments: tuple[str, ...]  # of train.py

    def cells(self, seeds: int, out: Path) -> list[Cell]:
        """A cell a seed, each with a directory of its own."""
        cells = []
        for seed in range(seeds):
            path = (out / self.name / f"seed_{seed}").absolute()
            arguments = (*self.arguments, "--seed", str(seed), "--workdir", str(path))
            cells.append(Cell(self.name, seed, arguments, to_json(replace(self.config, seed=seed)), path, Path.cwd()))
        return cells


def read_rows(
    configs: Sequence[str], words: Sequence[str], sample: int | None, imports: tuple[str, ...]
) -> dict[str, Row]:
    """Every config with every setting that `words` make, by name; raises UserError where one of them cannot be.

    `sample` is how many settings are drawn; without it they are all combinations.
    """
    fields = read_fields(words)
    import_words = ("--import", *imports) if imports else ()
    rows: dict[str, Row] = {}
    for path in configs:
        base = parse_train([path, *import_words]).config
        known = flatten(to_json(base))
        for name in fields:
            if name not in known:
                near = suggest_flag(f"--{name}", TrainOptions(base)).replace("--", "")
                raise UserError(f"--set {name}: no field of {path} is set by that name{near}")
        whole_numbers = {name for name in fields if is_whole(known[name])}
        for setting in grid(fields) if sample is None else draw(fields, sample, whole_numbers):
            row = read_row(path, setting, known, import_words)
            same = rows.setdefault(row.name, row)
            require(same.config == row.config, f"two configs are named {row.name}; rename one of them")
    return rows


def is_whole(value: object) -> bool:
    """Whether a field holds a whole number, or several."""
    values = value if isinstance(value, list) else [value]
    return all(isinstance(each, int) and not isinstance(each, bool) for each in values)


def read_row(path: str, setting: Setting, known: dict[str, object], imports: tuple[str, ...]) -> Row:
    """A config with a setting. Its name has values as the config has them: 1e-3 and 0.001 are one."""
    flags = [word for name, text in setting.items() for word in flag(name, text, known[name])]
    arguments = (path, *flags, *imports)
    options = parse_train(list(arguments))
    values = flatten(to_json(options.config))
    words = [options.name, *(f"{field}={in_a_word(values[field])}" for field in setting)]
    return Row(",".join(words), options.config, arguments)


def flag(name: str, text: str, known: object) -> list[str]:
    """What sets a field on the command line of `train.py`. `known` is what it is in the config, as JSON."""
    name = name.replace("_", "-")
    if isinstance(known, bool):
        require(text in ("True", "False"), f"--set {name}={text}: expected True or False")
        place, _, last = name.rpartition(".")
        return [f"--{name}" if text == "True" else f"--{place}{'.' if place else ''}no-{last}"]
    return [f"--{name}", *(text.split() if isinstance(known, list) else [text])]


def in_a_word(value: object) -> str:
    """A value as a part of a file's name that no shell takes apart."""
    return quote_plus(" ".join(map(str, value)) if isinstance(value, list) else str(value))


def check_validation(rows: dict[str, Row]) -> None:
    """Raise UserError where a config's dataset leaves a search nothing to choose by."""
    for dataset, row in {row.config.dataset: row for row in rows.values()}.items():
        if dataset.load().validation is None:
            can = "dataset.validation" in flatten(to_json(row.config))
            how = "add --set dataset.validation=5000" if can else "hold some out in its dataset"
            raise UserError(f"a search chooses by validation, and {row.name} holds no images out for it; {how}")


def check_name(name: str, rows: dict[str, Row]) -> None:
    """Raise UserError unless a row has this name."""
    if name not in rows:
        near = difflib.get_close_matches(name, rows, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"--compare {name}: there is no such row{hint} The rows are:", list(rows))
