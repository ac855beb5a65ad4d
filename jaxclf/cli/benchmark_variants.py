"""Variants of a benchmark: configs with settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

from jaxclf.benchmark.cells import Cell
from jaxclf.benchmark.grid import Setting, expand_grid, parse_fields, sample_settings
from jaxclf.cli.train_options import TrainOptions, parse_train, suggest_flag
from jaxclf.config import Config
from jaxclf.config_io import flatten, to_json
from jaxclf.datasets import ImageFolder, load_splits
from jaxclf.errors import UserError, require, suggest_names


@dataclass(frozen=True)
class Variant:
    """A config with a setting."""

    name: str
    """Name of its directory and of its row in the tables."""
    config: Config
    arguments: tuple[str, ...]
    """Command-line arguments of `jaxclf train`."""

    def make_cells(self, seeds: int, out: Path, folds: int = 0) -> list[Cell]:
        """Return one cell per seed, each with its own run directory and, with folds, its own validation images."""
        cells = []
        for seed in range(seeds):
            path = (out / self.name / f"seed_{seed}").absolute()
            arguments, config = (*self.arguments, "--seed", str(seed)), replace(self.config, seed=seed)
            if folds:
                arguments += ("--dataset.folds", str(folds), "--dataset.fold", str(seed % folds))
                dataset: Any = config.dataset
                config = replace(config, dataset=replace(dataset, folds=folds, fold=seed % folds))
            arguments += ("--workdir", str(path))
            cells.append(Cell(self.name, seed, arguments, to_json(config), path, Path.cwd()))
        return cells


def build_variants(
    configs: Sequence[str], words: Sequence[str], sample: int | None, imports: tuple[str, ...]
) -> dict[str, Variant]:
    """Combine every config with every setting.

    Args:
        configs: Paths or names of configs.
        words: Arguments of `--set`.
        sample: Number of settings to sample; None for all combinations.
        imports: Modules that define classes of the configs.

    Returns:
        The variants by name.

    Raises:
        UserError: If a field or value is not valid for a config, or two different configs have the same name.
    """
    fields = parse_fields(words)
    import_words = ("--import", *imports) if imports else ()
    variants: dict[str, Variant] = {}
    for path in configs:
        base = parse_train([path, *import_words]).config
        known = flatten(to_json(base))
        for name in fields:
            if name not in known:
                near = suggest_flag(f"--{name}", TrainOptions(base)).replace("--", "")
                raise UserError(f"--set {name}: {path} has no such field{near}")
        integers = {name for name in fields if _is_integer(known[name])}
        for setting in expand_grid(fields) if sample is None else sample_settings(fields, sample, integers):
            variant = _build_variant(path, setting, known, import_words)
            same = variants.setdefault(variant.name, variant)
            require(same.config == variant.config, f"two configs are named {variant.name}; rename one of them")
    return variants


def _is_integer(value: object) -> bool:
    """Return whether the value of a field is an integer or a list of integers."""
    values = value if isinstance(value, list) else [value]
    return all(isinstance(each, int) and not isinstance(each, bool) for each in values)


def _build_variant(path: str, setting: Setting, known: dict[str, object], imports: tuple[str, ...]) -> Variant:
    """Combine a config with a setting; `known` are the fields of the config, as JSON."""
    flags = [word for name, text in setting.items() for word in _format_flag(name, text, known[name])]
    arguments = (path, *flags, *imports)
    options = parse_train(list(arguments))
    # The name has the parsed values, so that 1e-3 and 0.001 are the same variant.
    values = flatten(to_json(options.config))
    words = [options.name, *(f"{field}={_format_for_filename(values[field])}" for field in setting)]
    return Variant(",".join(words), options.config, arguments)


def _format_flag(name: str, text: str, known: object) -> list[str]:
    """Return the command-line arguments that set a field to a value; `known` is its value in the config, as JSON."""
    name = name.replace("_", "-")
    if isinstance(known, bool):
        require(text in ("True", "False"), f"--set {name}={text}: expected True or False")
        parent, _, last = name.rpartition(".")
        return [f"--{name}" if text == "True" else f"--{parent}{'.' if parent else ''}no-{last}"]
    return [f"--{name}", *(text.split() if isinstance(known, list) else [text])]


def _format_for_filename(value: object) -> str:
    """Format a value as part of a filename that needs no quoting in a shell."""
    return quote_plus(" ".join(map(str, value)) if isinstance(value, list) else str(value))


def check_folds(variants: dict[str, Variant], folds: int, seeds: int) -> None:
    """Raise UserError unless every dataset has folds, and every fold is held out equally often."""
    require(folds > 1, f"--folds {folds}: expected at least 2")
    require(seeds % folds == 0, f"--seeds {seeds}: expected a multiple of --folds {folds}, so that every fold counts")
    for variant in variants.values():
        require(
            isinstance(variant.config.dataset, ImageFolder),
            f"--folds {folds} is for image folders, and the dataset of {variant.name} is a "
            f"{type(variant.config.dataset).__name__}",
        )


def check_validation(variants: dict[str, Variant]) -> None:
    """Raise UserError if a dataset has no validation split, which a search needs."""
    for dataset, variant in {variant.config.dataset: variant for variant in variants.values()}.items():
        if load_splits(dataset).validation is None:
            has_field = "dataset.validation" in flatten(to_json(variant.config))
            hint = "add --set dataset.validation=5000" if has_field else "add a validation split to its dataset"
            raise UserError(f"a search chooses by validation, and {variant.name} has no validation split; {hint}")


def check_name(name: str, variants: dict[str, Variant]) -> None:
    """Raise UserError unless a variant has this name."""
    if name not in variants:
        hint = suggest_names(name, variants) or "."
        raise UserError(f"--compare {name}: no such row{hint} The rows are:", list(variants))
