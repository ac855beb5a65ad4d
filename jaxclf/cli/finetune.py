"""`jaxclf finetune photographs --bundle lite0 --workdir runs/photographs`: train pretrained weights on a folder."""

from __future__ import annotations

from pathlib import Path

from jaxclf.cli import train
from jaxclf.cli.load_run import load_network, make_folder
from jaxclf.cli.options import FinetuneOptions
from jaxclf.cli.train_options import TrainOptions
from jaxclf.inference.trained_model import TrainedModel
from jaxclf.pretrained import Pretrained
from jaxclf.pretrained.initial import hash_variables
from jaxclf.pretrained.packages import PACKAGES
from jaxclf.runs.directory import RunDirectory
from jaxclf.training.fine_tuning import Choices, Start, build_config, hold_out_images


def run(options: FinetuneOptions) -> int:
    """Run `jaxclf finetune`; return the exit code."""
    network = load_network(options)
    chosen = [word.partition("=")[0].removeprefix("--dataset.").replace("-", "_") for word in options.dataset]
    folder = hold_out_images(make_folder(options, network), chosen)
    splits = RunDirectory(options.workdir).load_splits(folder)  # those it began with, if the run resumes
    start = Start(
        network.model,
        _name_weights(options.bundle, network),
        network.config.evaluation_transform,
        network.input_shape,
    )
    choices = Choices(options.epochs, options.batch_size, options.learning_rate, options.seed)
    config, reasons = build_config(folder, splits, start, choices)
    for reason in reasons:
        print(reason)
    return train.run(
        TrainOptions(
            config,
            workdir=str(options.workdir),
            parallel=options.parallel,
            compilation_cache=options.compilation_cache,
            imports=options.imports,
            dry_run=options.dry_run,
        )
    )


def _name_weights(bundle: Path, network: TrainedModel) -> Pretrained:
    """Return the weights of a bundle as a component of a config."""
    if not bundle.exists() and str(bundle) in PACKAGES:
        return Pretrained(str(bundle))
    return Pretrained(str(bundle), hash_variables(network.variables))
