"""The Python API: `fit`, `evaluate`, `load` and `Run`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import jax
import numpy as np
from flax.errors import ScopeParamShapeError
from jaxtyping import Float, Int

from jaxclf.augment import compute_input_shape, compute_output_shape
from jaxclf.config import Config
from jaxclf.config_io import flatten, to_json
from jaxclf.datasets import get_resizing, load_splits
from jaxclf.errors import UserError, require
from jaxclf.inference.explain import select_baseline
from jaxclf.inference.images import Images, read_images
from jaxclf.inference.initial_variables import load_initial_variables
from jaxclf.inference.trained_model import TrainedModel
from jaxclf.io.files import hash_json, read_json, write_json
from jaxclf.io.progress import show_status
from jaxclf.models.calling import get_mode, infer_shapes
from jaxclf.models.summary import Summary, summarize
from jaxclf.pretrained import Pretrained
from jaxclf.random import make_example_keys
from jaxclf.reporting.report import EvaluatedSplit, write_report
from jaxclf.reporting.training_output import OverviewRecorder, evaluate_held_out, record_test
from jaxclf.runs.directory import BeginRun, RunDirectory, read_metrics
from jaxclf.runs.environment import get_versions
from jaxclf.runs.summary import build_summary
from jaxclf.training.callbacks import Callback, RecordWriters
from jaxclf.training.checkpoint import Checkpoints
from jaxclf.training.devices import Devices
from jaxclf.training.distributed import is_main_process, main_process_first
from jaxclf.training.evaluation import Evaluation
from jaxclf.training.evaluation import evaluate as evaluate_split
from jaxclf.training.progress_bar import ProgressBar
from jaxclf.training.state import get_variables
from jaxclf.training.step_config import build_step_config
from jaxclf.training.trainer import Trainer
from jaxclf.training.user_code import explain_tracing_errors
from jaxclf.training.writers import Artifact, Jsonl, Record, RunInfo, TensorBoard, Writer, select_scalars
from jaxclf.types import Array, Split, Splits, Variables

if TYPE_CHECKING:
    from jaxclf.saliency import Attribution, Method


class Run(TrainedModel):
    """A trained run: what `fit` and `load` return."""

    @cached_property
    def history(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl: `step`, `epoch`, `split`, `period` and the metrics of each record."""
        return read_metrics(self.directory)

    @cached_property
    def summary(self) -> dict[str, Any]:
        """What summary.json holds: the results of the finished run, its steps and its times in seconds."""
        return read_json(self.directory.summary)

    def evaluate(
        self, data: str | Array = "test", labels: Any = None, *, batch_size: int | None = None
    ) -> dict[str, float]:
        """Compute the loss and the metrics of the config.

        Args:
            data: The name of a split ("train", "validation", "test"), or images [n, h, w, c], uint8 or
                floats in [0, 1].
            labels: Integers [n]; needed with images.
            batch_size: Images per batch, at most; the result does not depend on it. By default the config's.

        Returns:
            `loss` and the metrics by name, such as `accuracy` in [0, 1].

        Raises:
            UserError: If the run has no such split, or images and labels do not fit.
        """
        if isinstance(data, str):
            split = self.splits[data]
        else:
            require(labels is not None, "images are evaluated with labels [n]; give them, or use predict")
            split = Split(self.check_images(np.asarray(data)), np.asarray(labels), self.class_names)
        step_config, devices = build_step_config(self.config, 1), Devices.all()
        step = devices.compile_eval_step(step_config)
        size = batch_size or self.eval_batch_size
        return select_scalars(evaluate_split(step_config, devices, step, self.variables, split, size).values)

    def predict(self, images: Images) -> Float[np.ndarray, "n classes"]:
        """Compute class probabilities.

        Args:
            images: An array [n, h, w, c], integers in 0..255 or floats in [0, 1]; or paths and PIL images of any size,
                which are prepared as in training.

        Returns:
            Probabilities [n, classes].

        Raises:
            UserError: If the shape is wrong or a file cannot be read.
        """
        return super().predict(read_images(self, images))

    def features(self, images: Images, layer: str | None = None) -> Float[np.ndarray, "n c"]:
        """Compute pooled features: one vector for each image, for retrieval or for another classifier.

        Args:
            images: As in `predict`.
            layer: The path of a layer, such as "stage3_block1", whose output is averaged over positions; None: the
                input of the last dense layer, which is what the network classifies.

        Returns:
            Features [n, c].

        Raises:
            UserError: If the network has no such layer, or its output is not one vector per position.
        """
        return super().features(read_images(self, images), layer)

    def explain(
        self,
        method: Method,
        images: Images,
        targets: Int[Array, " n"] | int | None = None,
        *,
        baseline: Array | float | None = None,
    ) -> Attribution:
        """Compute saliency maps.

        Args:
            method: A method of `jaxclf.saliency`.
            images: As in `predict`.
            targets: The class to explain, one for each image or one for all; None: the predicted class.
            baseline: The baseline of the method, in [0, 1]; by default zeros, for expected gradients training images.

        Returns:
            An `Attribution` of NumPy arrays. Its `values` are [n, h, w, c], of the images after the
            `evaluation_transform` of the config; those of class activation maps are smaller.

        Raises:
            UserError: If the shape is wrong, a file cannot be read, or the method does not suit the network.
        """
        images = self.transform(self.check_images(read_images(self, images)))
        keys = make_example_keys(self.config.seed, np.arange(len(images)))
        if baseline is None:
            baseline = select_baseline(self, method)
        attribution = method(self.model, self.variables, images, targets, key=keys, baseline=baseline)
        return jax.device_get(attribution)


def load(
    path: str | Path,
    checkpoint: str = "last",
    weights: Literal["ema", "raw"] = "ema",
    imports: tuple[str, ...] = (),
    splits: Splits | None = None,
) -> Run:
    """Load a run from its directory; see `TrainedModel.load`, which documents the arguments."""
    return Run.load(path, checkpoint, weights, imports, splits)


def evaluate(run: Run | str | Path, split: str = "test", *, batch_size: int | None = None) -> dict[str, float]:
    """Compute the loss and the metrics of a run, or of the run in a directory, on one of its splits.

    Args:
        run: A run or its directory.
        split: "train", "validation" or "test".
        batch_size: Images per batch, at most; the result does not depend on it.

    Returns:
        `loss` and the metrics of the config by name.

    Raises:
        UserError: If there is no such run or split.
    """
    return (run if isinstance(run, Run) else load(run)).evaluate(split, batch_size=batch_size)


def fit(
    config: Config,
    *,
    splits: Splits | None = None,
    workdir: str | Path | None = None,
    writers: Sequence[Writer] = (),
    callbacks: Sequence[Callback] = (),
    init: Run | Variables | Pretrained | None = None,
    resume: Literal["auto", "force"] = "auto",
    devices: Devices | None = None,
) -> Run:
    """Train the network of a config, and evaluate it.

    Args:
        config: The dataset, the model, the optimizer and how they are trained.
        splits: The data; by default `config.dataset.load()`.
        workdir: The run directory. It then holds what `train.py` writes: config, metrics, checkpoints, summary, report.
            A run that was interrupted resumes, a finished one is loaded. None writes nothing to disk.
        writers: Where metrics go besides metrics.jsonl; by default TensorBoard. Only with a `workdir`.
        callbacks: Your own hooks of the training loop.
        init: Where to start from: variables of the model, a run whose variables are taken, or pretrained weights,
            which become part of the config.
        resume: "auto" refuses to resume a run whose config has changed; "force" resumes it.
        devices: The devices to train on; by default all, as one data-parallel mesh.

    Returns:
        The trained run.

    Raises:
        UserError: If config, data and devices do not fit, or the directory holds another run.
        NonFiniteError: If the loss or a parameter is no longer finite.
        Interrupted: If a callback has asked to stop.
    """
    began = time.perf_counter()
    require(init is None or config.init is None, "init is given beside that of the config; remove one of them")
    if isinstance(init, Pretrained):
        config, init = replace(config, init=init), None
    directory = None if workdir is None else RunDirectory(workdir)
    if directory is not None and directory.check(to_json(config), resume == "force"):
        return Run.load(directory.path, splits=splits, config=config)
    if splits is None:
        with main_process_first():
            splits = load_splits(config.dataset) if directory is None else directory.load_splits(config.dataset)
    summary = check_model(config, splits)
    if init is None:
        variables = load_initial_variables(config, splits)
    else:
        variables = init.variables if isinstance(init, TrainedModel) else init
    return train_run(config, splits, summary, began, directory, writers, callbacks, variables, devices)


def train_run(
    config: Config,
    splits: Splits,
    summary: Summary,
    began: float,
    directory: RunDirectory | None = None,
    writers: Sequence[Writer] = (),
    callbacks: Sequence[Callback] = (),
    init: Variables | None = None,
    devices: Devices | None = None,
) -> Run:
    """Train and evaluate, with what `fit` and `jaxclf train` have prepared: data, the summary of `check_model`, and a
    directory that holds no finished run. `began` is when the run began, in seconds of time.perf_counter.
    """
    bar: list[Callback] = [ProgressBar()] if is_main_process() else []
    trainer = Trainer(config, splits, devices, callbacks=[*bar, *callbacks], init=init)
    if directory is None:
        with closing(trainer):
            return _finish(trainer, summary, None, began)
    # Whatever is refused is refused before this: nothing is written until the run can start.
    with directory.hold() if is_main_process() else nullcontext():
        return _fit_in(directory, trainer, summary, writers, began)


def check_model(config: Config, splits: Splits) -> Summary:
    """Return the summary of a config's model; raise UserError if it does not fit the data."""
    train, classes = splits.train, len(splits.train.class_names)
    require(classes > 1, f"the dataset has one class, {train.class_names[0]!r}; expected at least two")
    augmented = compute_output_shape(config.augment, train.image_shape)
    require(
        augmented == train.image_shape or config.evaluation_transform is not None,
        f"training images are augmented from {list(train.image_shape)} to {list(augmented)}, and images of evaluation "
        f"stay as they are; add evaluation_transform=CenterCrop({min(augmented[:2])}) to the config",
    )
    shape = compute_input_shape(config.evaluation_transform, train.image_shape)
    images = jax.ShapeDtypeStruct((1, *shape), train.images[:1].dtype)
    with explain_tracing_errors(config.model):
        summary = summarize(config.model, shape)
        logits, variables = infer_shapes(config.model, images)
        _check_training_size(config, variables, images.update(shape=(1, *augmented)))
    shape = getattr(logits, "shape", None)
    require(
        shape is not None and len(shape) == 2,
        f"the model returns {'no array' if shape is None else list(shape)} for one image; expected logits "
        f"[1, {classes}]: flatten or average over the positions first",
    )
    if logits.shape[-1] != classes:
        raise UserError(
            f"the model has {logits.shape[-1]} logits and the dataset {classes} classes; add --model.classes {classes}"
        )
    return summary


def _check_training_size(config: Config, variables: Variables, images: jax.ShapeDtypeStruct) -> None:
    """Raise UserError if a network that is built for images of evaluation cannot take those of training."""
    try:
        jax.eval_shape(partial(config.model.apply, **get_mode(config.model, False)), variables, images)
    except ScopeParamShapeError as error:
        raise UserError(
            f"{type(config.model).__name__} is built for the size of images in evaluation, and training images are "
            f"augmented to {list(images.shape[1:])}; crop both to the same size"
        ) from error


def _fit_in(
    directory: RunDirectory, trainer: Trainer, summary: Summary, writers: Sequence[Writer], began: float
) -> Run:
    """Train in a run directory that this process holds."""
    config = to_json(trainer.config)
    about = {"config_sha256": hash_json(config), "versions": get_versions()}
    with main_process_first():  # it removes what an interrupted save left
        checkpoints = Checkpoints(directory.checkpoints, True, about)
    with closing(checkpoints):
        trainer.keep_checkpoints(checkpoints)
        directory.check_shared(trainer.resumed.step if trainer.resumed else 0)
        if is_main_process():
            rows = read_metrics(directory)[: trainer.resumed.notes["rows"]] if trainer.resumed else []
            info = RunInfo(directory.path, flatten(config), rows)
            begin = BeginRun(directory, config)
            trainer.add_callbacks(begin, RecordWriters(_complete_writers(writers), info), OverviewRecorder(summary))
        with closing(trainer):
            return _finish(trainer, summary, directory, began)


def _complete_writers(writers: Sequence[Writer]) -> list[Writer]:
    """Return some writers and the one that every run directory needs."""
    others = [writer for writer in writers if not isinstance(writer, Jsonl)]
    return [Jsonl(), *(others if writers else [TensorBoard()])]


def _finish(trainer: Trainer, summary: Summary, directory: RunDirectory | None, began: float) -> Run:
    """Train to the end, evaluate, and write the summary and the report where there is a directory."""
    trainer.fit()
    evaluations = evaluate_held_out(trainer)
    test = record_test(trainer, evaluations)
    best = None
    if trainer.checkpoints is not None:
        trainer.checkpoints.wait()
        best = trainer.checkpoints.best
    result = build_summary(trainer, summary.parameters, test, best, began)
    train = trainer.splits.train
    variables = jax.device_get(get_variables(trainer.state))
    run = Run(
        trainer.config, trainer.progress.steps_done, train.class_names, train.image_shape, variables,
        directory.path if directory else None, trainer.splits,
        get_resizing(trainer.config.dataset),
    )  # fmt: skip
    if directory is None:
        vars(run).update(history=trainer.history, summary=result)  # cached properties that would read files
    elif is_main_process():
        write_json(directory.summary, result)  # from here on the run is finished
        if evaluations:
            _report(trainer, run, evaluations)
    return run


def _report(trainer: Trainer, run: Run, evaluations: Mapping[str, Evaluation]) -> None:
    """Write the report of the test images or, where there are none, of validation."""
    name = "test" if "test" in evaluations else "validation"
    logits = {split: evaluation.logits for split, evaluation in evaluations.items()}
    evaluated = EvaluatedSplit(trainer.splits, name, logits[name], logits.get("validation"))
    with show_status("writing the report"):
        report = write_report(run, read_metrics(run.directory), evaluated)
    progress = trainer.progress
    trainer.record(Record(progress.steps_done, progress.epochs_done, "", "epoch", {"report": Artifact(report)}))
