"""What a run shows beside its numbers: images, the network, predictions and choices in TensorBoard; a report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np

from jaxclf.config_io import flatten, to_json
from jaxclf.inference.trained_model import TrainedModel
from jaxclf.models.graph import graph
from jaxclf.models.summary import Summary
from jaxclf.reporting.figures import confusion_figure, pixels, prediction_grid, tile
from jaxclf.reporting.figures.confusion import MOST
from jaxclf.reporting.report import Evaluated, write_report
from jaxclf.reporting.run_figures import GRID
from jaxclf.runs.directory import RunDirectory, read_metrics
from jaxclf.training.evaluation import Evaluation
from jaxclf.training.step import TrainState, variables_of
from jaxclf.training.trainer import Trainer
from jaxclf.training.writers import Graph, HyperParameters, Image, Record, Text

SOME = 25  # images of what a network is to learn


def show_inputs(trainer: Trainer) -> None:
    """Some images of training and validation."""
    for name, split in trainer.splits.items():
        if split is not None and name != "test":
            picture = tile(split.images[split.some(SOME)])
            trainer.write(Record(0, 0, name, "epoch", {"inputs": Image(picture)}))


def show_network(trainer: Trainer, summary: Summary) -> None:
    """The network, untrained: its operations and its parameters."""
    nodes = graph(trainer.config.model, trainer.splits.train.image_shape)
    values = {"graph": Graph(nodes), "network": Text(summary.markdown())}
    trainer.write(Record(0, 0, "train", "epoch", values))


def show_predictions(trainer: Trainer, name: str, predictions: np.ndarray) -> None:
    """Some predictions on a split and, of not too many classes, the confusion matrix."""
    split = trainer.splits[name]
    some, names = split.some(GRID), split.class_names
    grid = prediction_grid(split.images[some], split.labels[some], predictions[some], names)
    pictures = {"predictions": Image(pixels(grid))}
    if len(names) <= MOST:
        matrix = np.zeros((len(names), len(names)), np.int64)
        np.add.at(matrix, (split.labels, predictions), 1)
        pictures["confusion"] = Image(pixels(confusion_figure(matrix, names)))
    trainer.write(Record(trainer.progress.steps_done, trainer.progress.epochs_done, name, "epoch", pictures))


def show_choices(trainer: Trainer, test: dict[str, float] | None) -> None:
    """What the run was made with beside what came of it."""
    results = {f"test_{name}": test[name] for name in ("accuracy", "loss") if name in test} if test else {}
    values = {"choices": HyperParameters(flatten(to_json(trainer.config)), results)}
    trainer.write(Record(trainer.progress.steps_done, trainer.progress.epochs_done, "", "epoch", values))


def show_report(
    trainer: Trainer, directory: RunDirectory, state: TrainState, evaluations: Mapping[str, Evaluation]
) -> Path:
    """The report of a run at its end: of its test images or, where there are none, of validation; returns the file."""
    train, name = trainer.splits.train, "test" if "test" in evaluations else "validation"
    step, variables = trainer.progress.steps_done, jax.device_get(variables_of(state))
    run = TrainedModel(directory, trainer.config, step, train.class_names, train.image_shape, variables)
    logits = {name: evaluation.logits for name, evaluation in evaluations.items()}
    evaluated = Evaluated(trainer.splits, name, logits[name], logits.get("validation"))
    return write_report(run, read_metrics(directory), evaluated)
