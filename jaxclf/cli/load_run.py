"""Loading the run that the command line names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import fields, make_dataclass, replace
from pathlib import Path
from typing import Any

from jaxclf.cli.app import parse
from jaxclf.cli.options import DataRunOptions, RunOptions
from jaxclf.cli.train_options import find_similar
from jaxclf.errors import require
from jaxclf.inference.trained_model import TrainedModel
from jaxclf.training.devices import keep_compiled


def load_run(options: RunOptions) -> TrainedModel:
    """Set up the compilation cache and load the run and checkpoint of the options."""
    keep_compiled(options.compilation_cache)
    return TrainedModel.load(options.run, options.checkpoint, options.weights, options.imports)


def override_dataset(dataset: Any, arguments: Sequence[str]) -> Any:
    """Return a dataset with the fields that arguments such as `--dataset.root DIR` give."""
    if not arguments:
        return dataset
    cls = make_dataclass("DatasetOptions", [("dataset", type(dataset), dataset)])
    names = [f"dataset.{field.name}" for field in fields(dataset)]

    def suggest(argument: str, _: Any) -> str:
        return find_similar(argument.lstrip("-").replace("-", "_"), names)

    return parse(cls, list(arguments), prog="jaxclf", default=cls(), suggest=suggest).dataset


def load_run_with_data(options: DataRunOptions) -> tuple[TrainedModel, Path]:
    """Load the run of the options with the dataset they change; return it and the directory to write to.

    The remarks on its data are printed.
    """
    run, output = load_run(options), options.output or options.run
    output.mkdir(parents=True, exist_ok=True)
    require(os.access(output, os.W_OK), f"{output} cannot be written to; name another directory with --output")
    run = replace(run, config=replace(run.config, dataset=override_dataset(run.config.dataset, options.dataset)))
    for remark in run.splits.remarks:
        print(remark)
    return run, output
