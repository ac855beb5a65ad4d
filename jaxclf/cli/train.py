"""Train the network of a config: `jaxclf train configs/mnist_cnn.py [overrides]`."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from rich.console import Console

from jaxclf.api import check_model, train_run
from jaxclf.cli.remarks import print_remarks
from jaxclf.cli.train_options import TrainOptions
from jaxclf.cli.writers import build_writers
from jaxclf.config import Config
from jaxclf.config_io import to_json
from jaxclf.datasets import load_splits
from jaxclf.inference.initial_variables import load_initial_variables
from jaxclf.io.files import read_json
from jaxclf.models.summary import Summary
from jaxclf.optimizers.groups import summarize_groups
from jaxclf.reporting.stats import estimate_proportion_interval
from jaxclf.runs.directory import RunDirectory
from jaxclf.runs.signals import StopOnSignal, handle_sigterm
from jaxclf.training.callbacks import Callback
from jaxclf.training.devices import Devices
from jaxclf.training.distributed import initialize, is_main_process, main_process_first
from jaxclf.training.pipeline import count_steps_per_epoch
from jaxclf.training.profiling import Profiler, parse_steps
from jaxclf.training.trainer import Interrupted, Trainer
from jaxclf.types import Splits
from jaxclf.xla.options import disable_fast_convolutions
from jaxclf.xla.program_cache import keep_programs


@handle_sigterm()
def run(options: TrainOptions) -> int:
    """Train and evaluate a run, and print its results; return the exit code."""
    began, config = time.perf_counter(), options.config
    if options.print_config:
        print(json.dumps(to_json(config), indent=2))
        return 0
    if not options.fast_convolutions:
        disable_fast_convolutions()
    initialize(options.processes)
    keep_programs(options.compilation_cache)
    directory = RunDirectory(options.workdir or f"runs/{options.name}")
    if not options.dry_run and directory.check(to_json(config), options.resume == "force"):
        print(f"{directory.path} is finished")
        print_result(read_json(directory.summary))
        return 0
    with main_process_first():
        splits = load_splits(config.dataset) if options.dry_run else directory.load_splits(config.dataset)
    _print_classes(splits)
    summary = check_model(config, splits)
    Console(file=sys.stdout, soft_wrap=True).print(summary.to_table())
    devices = Devices.all(options.parallel, options.input)
    init = load_initial_variables(config, splits)
    if options.dry_run:
        _try_step(Trainer(config, splits, devices, init=init), summary)
        return 0
    callbacks: list[Callback] = [_build_profiler(options, config, splits, directory)] if options.profile else []
    with StopOnSignal() as stop:
        try:
            trained = train_run(
                config, splits, summary, began, directory, build_writers(options.writers, options.imports),
                [*callbacks, stop], init, devices,
            )  # fmt: skip
        except Interrupted as interrupted:
            if is_main_process():
                step = f"stopped at step {interrupted.step:,}"
                print(f"{step}; the same command resumes from there", file=sys.stderr)
            return 128 + interrupted.signal
    if is_main_process():
        print_result(trained.summary)
        print(f"written to {directory.path}")
        report = directory.path / "report.html"
        if report.exists():
            print(f"wrote {report}")
    return 0


def _print_classes(splits: Splits) -> None:
    """Print the class of each label, unless labels are their names, and the remarks of the dataset."""
    names = splits.train.class_names
    if names != tuple(map(str, range(len(names)))):
        print("classes: " + ", ".join(f"{label} {name}" for label, name in enumerate(names)))
    print_remarks(splits)


def _build_profiler(options: TrainOptions, config: Config, splits: Splits, directory: RunDirectory) -> Profiler:
    steps = count_steps_per_epoch(len(splits.train), config.batch_size, config.remainder) * config.epochs
    return Profiler(directory.profile, *parse_steps(str(options.profile), steps))


def _try_step(trainer: Trainer, summary: Summary) -> None:
    """Print what a run would do, and run one step of it."""
    config, train = trainer.config, trainer.splits.train
    for name, split in trainer.splits.items():
        print(f"{name}: {'none' if split is None else list(split.images.shape)}")
    print(f"batch: {[config.batch_size, *train.image_shape]}, {len(train.class_names)} classes")
    print(f"forward pass: {summary.forward_flops:,.0f} floating-point operations an image")
    print(f"steps: {trainer.steps_per_epoch:,} an epoch, {trainer.total_steps:,} in all")
    for line in summarize_groups(trainer.assignments):
        print(f"optimizer group {line}")
    trainer.start()
    print(f"one step: loss {trainer.try_steps(1):.4f}, compiled in {trainer.compile_seconds:.1f} s")


def print_result(result: dict[str, Any]) -> None:
    """Print the summary of a run."""
    for name, images in (("train_full", "training"), ("validation", "validation")):
        values = result.get(name)
        if values and "accuracy" in values:
            print(f"On {images} images: {values['accuracy']:.2%}, loss {_format_loss(values['loss'])}")
    test = result["test"]
    if test is None:
        print("no test images")
    else:
        mistakes, examples = test["mistakes"], test["examples"]
        low, high = estimate_proportion_interval(examples - mistakes, examples)
        print(
            f"Overall accuracy: {test['accuracy']:.2%} ({mistakes:,} mistakes in {examples:,}; 95 % interval {low:.2%} "
            f"to {high:.2%}), test loss {_format_loss(test['loss'])}"
        )
    print(f"{result['steps']:,} steps in {result['train_seconds']:.1f} s: {result['images_per_second']:,.0f} images/s")


def _format_loss(loss: float | None) -> str:
    """Format a loss of summary.json, which has null for one that is not finite."""
    return "not finite" if loss is None else f"{loss:.4f}"
