"""Loading the run that the command line names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import fields, make_dataclass, replace
from pathlib import Path
from typing import Any

from jaxclf.cli.app import parse
from jaxclf.cli.options import DataRunOptions, FolderOptions, RunOptions
from jaxclf.cli.remarks import print_remarks
from jaxclf.cli.train_options import find_similar
from jaxclf.datasets import ImageFolder, load_splits
from jaxclf.errors import require
from jaxclf.inference.bundle import check_empty
from jaxclf.inference.import_weights import locate_run
from jaxclf.inference.labels import relabel_splits
from jaxclf.inference.trained_model import TrainedModel
from jaxclf.types import Splits
from jaxclf.xla.program_cache import keep_programs


def load_run(options: RunOptions) -> TrainedModel:
    """Set up the compilation cache and load the run of the options, or the weights that a package has."""
    keep_programs(options.compilation_cache)
    return TrainedModel.load(locate_run(options.run), options.checkpoint, options.weights, options.imports)


def override_dataset(dataset: Any, arguments: Sequence[str]) -> Any:
    """Return a dataset with the fields that arguments such as `--dataset.root DIR` give.

    Raises:
        UserError: If there is no dataset, or it has no such field.
    """
    if not arguments:
        return dataset
    require(
        dataset is not None,
        f"{' '.join(arguments)}: the config has dataset=None, which has no fields; give it a dataset, such as "
        'ImageFolder("photographs", (224, 224))',
    )
    cls = make_dataclass("DatasetOptions", [("dataset", type(dataset), dataset)])
    names = [f"dataset.{field.name}" for field in fields(dataset)]

    def suggest(argument: str, _: Any) -> str:
        return find_similar(argument.lstrip("-").replace("-", "_"), names)

    return parse(cls, list(arguments), prog="jaxclf", default=cls(), suggest=suggest).dataset


def choose_output(options: RunOptions, output: Path | None, folder: str = "") -> Path:
    """Return the directory to write to: the one that is given, or a folder in the run."""
    if output is not None:
        return output
    require(
        locate_run(options.run) == options.run,
        f"{options.run} is a package of weights, in which nothing is written; name a directory with --output",
    )
    return options.run / folder


def prepare_output(options: DataRunOptions, folder: str = "") -> Path:
    """Create the directory to write to; raise UserError if it cannot be written to."""
    output = choose_output(options, options.output, folder)
    output.mkdir(parents=True, exist_ok=True)
    require(os.access(output, os.W_OK), f"{output} cannot be written to; name another directory with --output")
    return output


def make_default_folder(run: TrainedModel) -> ImageFolder:
    """Return the dataset of a bundle, which has none: a folder of images that are prepared as its weights expect."""
    height, width, channels = run.image_shape
    require(channels == 3, f"the network takes images with {channels} channels, and those of folders have 3")
    return ImageFolder("", (height, width), train_fraction=1.0, resizing=run.resizing)


def load_run_with_data(options: DataRunOptions, folder: str = "") -> tuple[TrainedModel, Path]:
    """Load the run of the options with the dataset they change; return it and the directory to write to.

    The directory is the one that is given, or a folder in the run. The remarks on the data are printed.
    """
    run, output = load_run(options), prepare_output(options, folder)
    if run.config.dataset is None:
        require(bool(options.dataset), f"{options.run} has no dataset; name a folder with --dataset.root DIR")
        dataset = override_dataset(make_default_folder(run), options.dataset)
        run = replace(run, given_splits=relabel_splits(load_splits(dataset), run.class_names))
    else:
        dataset = override_dataset(run.config.dataset, options.dataset)
        run = replace(run, config=replace(run.config, dataset=dataset))
    print_remarks(run.splits)
    return run, output


def load_network(options: FolderOptions) -> TrainedModel:
    """Set up the compilation cache and load the network of the options.

    Raises:
        UserError: If results would be written among the images, or there is no such network.
    """
    require(
        not options.workdir.resolve().is_relative_to(Path(options.folder).resolve()),
        f"--workdir {options.workdir} is in the folder of the images, {options.folder}; name a directory outside of it",
    )
    keep_programs(options.compilation_cache)
    return TrainedModel.load(locate_run(options.bundle), imports=options.imports)


def make_folder(options: FolderOptions, network: TrainedModel) -> ImageFolder:
    """Return the folder of the options as a dataset; without folders of splits a fifth of each class is for testing."""
    folder = replace(make_default_folder(network), root=options.folder, train_fraction=0.8, test_fraction=0.2)
    return override_dataset(folder, options.dataset)


def load_folder(options: FolderOptions) -> tuple[TrainedModel, Splits]:
    """Load the network of the options and the images of its folder, and print the remarks on them.

    Raises:
        UserError: If the directory for the results is not empty, or the folder has fewer than two classes.
    """
    check_empty(options.workdir)
    network = load_network(options)
    splits = load_splits(make_folder(options, network))
    print_remarks(splits)
    names = splits.train.class_names
    require(
        len(names) > 1, f"{options.folder} has images of one class, {names[0]}: expected a folder for each of several"
    )
    return network, splits
