"""Train the network of a config: `python train.py configs/mnist_cnn.py [overrides]`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from typing import Any

import jax
import numpy as np
from rich.console import Console as RichConsole

from jaxclf.cli.remarks import print_remarks
from jaxclf.cli.train_options import TrainOptions
from jaxclf.config import Config
from jaxclf.config_io import to_json
from jaxclf.errors import UserError, require
from jaxclf.io.files import digest, read_json, write_json
from jaxclf.io.progress import working
from jaxclf.metrics import Accuracy
from jaxclf.models.summary import Summary, summarize
from jaxclf.reporting.training_output import show_choices, show_inputs, show_network, show_predictions, show_report
from jaxclf.runs.directory import RunDirectory
from jaxclf.runs.environment import versions
from jaxclf.runs.signals import StopSignals, terminable
from jaxclf.training.checkpoint import Checkpoints, Saved
from jaxclf.training.devices import Devices, keep_compiled
from jaxclf.training.distributed import (
    all_processes_agree,
    initialize,
    is_main_process,
    main_process_first,
    share_signal,
)
from jaxclf.training.evaluation import Evaluation, batch_shape
from jaxclf.training.profiling import Profiler, steps_to_profile
from jaxclf.training.step import TrainState
from jaxclf.training.trainer import Stopped, Trainer
from jaxclf.training.writers import Console, Jsonl, Record, TensorBoard, scalars
from jaxclf.types import Splits

DISK_DELAY = 60.0  # seconds that a file of one machine may take to be seen by another


@terminable()
def run(options: TrainOptions) -> int:
    """Parse, build, fit, evaluate the test set once, and write the summary."""
    began = time.perf_counter()
    if options.print_config:
        print(json.dumps(to_json(options.config), indent=2))
        return 0
    initialize(options.processes)
    keep_compiled(options.compilation_cache)
    directory = RunDirectory(options.workdir or f"runs/{options.name}")
    if not options.dry_run and directory.check(to_json(options.config), options.resume == "force"):
        print(f"{directory.path} is finished")
        print_result(read_json(directory.summary))
        return 0
    with main_process_first():
        splits = options.config.dataset.load()
    describe_data(splits)
    summary = describe(options.config, splits)
    trainer = Trainer(options.config, splits, Devices.all(options.parallel))
    if options.profile is not None:
        trainer.profiler = Profiler(directory.profile, *steps_to_profile(options.profile, trainer.total_steps))
    if options.dry_run:
        dry_run(trainer, summary)
        return 0
    with directory.begun(to_json(options.config)) if is_main_process() else nullcontext():
        return fit_and_report(trainer, directory, summary, began)


def describe_data(splits: Splits) -> None:
    """Say which class has which number, where numbers are not their names, and what is left out."""
    names = splits.train.class_names
    if names != tuple(map(str, range(len(names)))):
        print("classes: " + ", ".join(f"{label} {name}" for label, name in enumerate(names)))
    print_remarks(splits)


def describe(config: Config, splits: Splits) -> Summary:
    """Print the parameter table; raises UserError where model and data do not fit."""
    summary = summarize(config.model, splits.train.image_shape)
    RichConsole(file=sys.stdout, soft_wrap=True).print(summary.table())
    logits = jax.eval_shape(config.model.init_with_output, jax.random.key(0), batch_shape(splits.train, 1).images)[0]
    classes = len(splits.train.class_names)
    require(classes > 1, f"the dataset has one class, {splits.train.class_names[0]!r}; expected at least two")
    if logits.shape[-1] != classes:
        raise UserError(
            f"the model has {logits.shape[-1]} logits and the dataset {classes} classes; add --model.classes {classes}"
        )
    return summary


def dry_run(trainer: Trainer, summary: Summary) -> None:
    """Say what a run would do, and try one step of it."""
    config, train = trainer.config, trainer.splits.train
    for name, split in trainer.splits.items():
        print(f"{name}: {'none' if split is None else list(split.images.shape)}")
    print(f"batch: {[config.batch_size, *train.image_shape]}, {len(train.class_names)} classes")
    print(f"forward pass: {summary.forward_flops:,.0f} floating-point operations an image")
    print(f"steps: {trainer.steps_per_epoch:,} an epoch, {trainer.total_steps:,} in all")
    state = trainer.start()
    state = trainer.train_step(state, next(iter(trainer.batches(0, 1))), 1)
    loss = float(state.epoch_stats["loss"]["sum"] / state.epoch_stats["loss"]["count"])
    print(f"one step: loss {loss:.4f}, compiled in {trainer.compile_seconds:.1f} s")


def fit_and_report(trainer: Trainer, directory: RunDirectory, summary: Summary, began: float) -> int:
    """Fit, logging to the run directory, then evaluate the test set and write the summary; returns the exit code."""
    about = {"config_sha256": digest(to_json(trainer.config)), "versions": versions()}
    with main_process_first():  # which clears what an interrupted save left
        checkpoints = Checkpoints(directory.checkpoints, True, about)
    with StopSignals() as signals, closing(checkpoints):
        trainer.checkpoints, trainer.stop = checkpoints, share_signal(lambda: signals.came)
        step = trainer.resumed.step if trainer.resumed else 0
        check_shared(directory, step)
        behind = trainer.profiler is not None and step > trainer.profiler.start
        require(not behind, f"--profile: the run goes on from step {step:,}; name steps behind that")
        announce(trainer.splits, step)
        try:
            with written(trainer, directory) if is_main_process() else nullcontext():
                state = fit(trainer, summary)
                evaluations = evaluate_held_out(trainer, state)
                result = summarize_run(trainer, summary, report_test(trainer, evaluations), began)
            checkpoints.wait()
        except Stopped as stopped:
            checkpoints.wait()
            if is_main_process():
                print(
                    f"stopped at step {trainer.progress.steps_done:,}; the same command goes on from there",
                    file=sys.stderr,
                )
            return 128 + stopped.signal
        if is_main_process():
            write_json(directory.summary, result | {"best": described(checkpoints.best)})  # the run is finished
    print_result(result)
    print(f"written to {directory.path}")
    if is_main_process() and evaluations:
        with working("writing the report"):
            report = show_report(trainer, directory, state, evaluations)
        print(f"wrote {report}")
    return 0


def fit(trainer: Trainer, summary: Summary) -> TrainState:
    """Train to the end, what there is to see of data and network shown first."""
    if trainer.resumed is None:
        show_inputs(trainer)
        show_network(trainer, summary)
    with closing(trainer.profiler) if trainer.profiler else nullcontext():
        state = trainer.fit()
    if trainer.stopped_early and trainer.progress.epochs_done < trainer.config.epochs:
        print(f"stopped early: validation has not become better since epoch {trainer.progress.best_epoch}")
    return state


def check_shared(directory: RunDirectory, step: int) -> None:
    """Raise UserError, in every process, unless they see the same files: they write and read checkpoints together."""
    until = time.monotonic() + DISK_DELAY
    while not directory.config.exists() and time.monotonic() < until:
        time.sleep(1)
    require(
        all_processes_agree(step if directory.config.exists() else -1),
        f"the processes see different files in {directory.path}; name a --workdir on a disk that all of them share",
    )


@contextmanager
def written(trainer: Trainer, directory: RunDirectory) -> Iterator[None]:
    """Inside the block what a trainer reports is written and shown, behind what its checkpoint has seen written."""
    step, rows = (trainer.resumed.step, trainer.resumed.notes["rows"]) if trainer.resumed else (0, 0)
    jsonl, tensorboard = Jsonl(directory.metrics, rows), TensorBoard(directory.tensorboard, step)
    with closing(tensorboard), Console(trainer.config.epochs, trainer.total_steps, step) as console:

        def write(record: Record) -> None:
            for writer in (jsonl, tensorboard, console):
                writer(record)

        trainer.write, trainer.on_step, trainer.rows = write, console.step, lambda: jsonl.rows
        yield


def announce(splits: Splits, step: int) -> None:
    """Say where the run begins and what its curves will show."""
    if step:
        print(f"going on from step {step:,}")
    if splits.validation is None and splits.test is not None:
        print("no validation images: the curves show test, and nothing is chosen by them")


def evaluate_held_out(trainer: Trainer, state: TrainState) -> dict[str, Evaluation]:
    """What the final weights make of validation and test images, where there are such."""
    held_out = {name: split for name, split in trainer.splits.items() if split is not None and name != "train"}
    return {name: trainer.evaluate(state, split, keep_logits=True) for name, split in held_out.items()}


def report_test(trainer: Trainer, evaluations: dict[str, Evaluation]) -> dict[str, float] | None:
    """Loss, metrics, mistakes and examples of the test set, where there is one; written and shown."""
    found, progress = None, trainer.progress
    if "test" in evaluations:
        values, logits = evaluations["test"]
        split = trainer.splits["test"]
        stats = jax.jit(Accuracy().stats)(logits, split.labels, np.ones(len(split), bool))
        mistakes = len(split) - int(stats["sum"])
        found = scalars(values) | Accuracy().compute(stats) | {"mistakes": mistakes, "examples": len(split)}
        if is_main_process():
            show_predictions(trainer, "test", np.argmax(logits, axis=1))
        if trainer.curve_split != "test":  # where it is, the last epoch has it
            trainer.write(Record(progress.steps_done, progress.epochs_done, "test", "epoch", found))
    show_choices(trainer, found)
    return found


def summarize_run(
    trainer: Trainer, summary: Summary, test_values: dict[str, float] | None, began: float
) -> dict[str, Any]:
    """What `summary.json` holds but for the best checkpoint."""
    config = trainer.config
    epochs = trainer.progress.epochs_done
    return {
        "parameters": summary.parameters,
        "epochs": epochs,
        "steps": trainer.progress.steps_done,
        "batch_size": config.batch_size,
        **{name: values for name, values in trainer.progress.latest.items() if name != "test"},
        "test": test_values,
        "images_per_second": trainer.images_per_epoch * epochs / trainer.progress.train_seconds,
        "images_left_out": trainer.progress.images_left_out,
        "files_left_out": len(trainer.splits.skipped),
        "train_seconds": trainer.progress.train_seconds,
        "data_wait_seconds": trainer.progress.data_wait_seconds,
        "compile_seconds": trainer.compile_seconds,
        "wall_seconds": time.perf_counter() - began,
    }


def described(best: Saved | None) -> dict[str, Any] | None:
    """Step and metrics of the best checkpoint."""
    return {"step": best.step, **best.metrics} if best else None


def print_result(result: dict[str, Any]) -> None:
    """The result of a run, in the words of the studies."""
    for name, images in (("train_full", "training"), ("validation", "validation")):
        values = result.get(name)
        if values and "accuracy" in values:
            print(f"On {images} images: {values['accuracy']:.2%}, loss {values['loss']:.4f}")
    test = result["test"]
    if test is None:
        print("no test images")
    else:
        print(
            f"Overall accuracy: {test['accuracy']:.2%} ({test['mistakes']:,} mistakes in {test['examples']:,}), "
            f"test loss {test['loss']:.4f}"
        )
    print(f"{result['steps']:,} steps in {result['train_seconds']:.1f} s: {result['images_per_second']:,.0f} images/s")
