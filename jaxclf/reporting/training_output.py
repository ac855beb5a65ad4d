"""Records of a run besides its metrics: sample images, the network, predictions and hyperparameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxclf.augment import compute_input_shape
from jaxclf.config_io import flatten, to_json
from jaxclf.figures import plot_confusion_matrix, plot_prediction_grid, tile, to_pixels
from jaxclf.figures.confusion import MAX_CLASSES, count_confusions
from jaxclf.metrics import Accuracy
from jaxclf.models.graph import trace_graph
from jaxclf.models.summary import Summary
from jaxclf.reporting.run_figures import GRID
from jaxclf.training.callbacks import Callback
from jaxclf.training.distributed import is_main_process
from jaxclf.training.evaluation import Evaluation
from jaxclf.training.trainer import Trainer
from jaxclf.training.writers import Graph, HyperParameters, Image, Record, Text, select_scalars

SAMPLES = 25  # images of each split


class OverviewRecorder(Callback):
    """Records sample images, the operations of the network and its parameter table when a run starts."""

    def __init__(self, summary: Summary):
        self.summary = summary

    def on_ready(self, trainer: Trainer) -> None:
        """Record them once: not when the run resumes."""
        if trainer.resumed is not None:
            return
        for name, split in trainer.splits.items():
            if split is not None and name != "test":
                picture = tile(split.images[split.sample_indices(SAMPLES)])
                trainer.record(Record(0, 0, name, "epoch", {"inputs": Image(picture)}))
        shape = compute_input_shape(trainer.config.evaluation_transform, trainer.splits.train.image_shape)
        nodes = trace_graph(trainer.config.model, shape)
        values = {"graph": Graph(nodes), "network": Text(self.summary.to_markdown())}
        trainer.record(Record(0, 0, "train", "epoch", values))


def evaluate_held_out(trainer: Trainer) -> dict[str, Evaluation]:
    """Evaluate the final weights on validation and test images, where there are such."""
    held_out = {name: split for name, split in trainer.splits.items() if split is not None and name != "train"}
    return {name: trainer.evaluate(split, keep_logits=True) for name, split in held_out.items()}


def record_test(trainer: Trainer, evaluations: Mapping[str, Evaluation]) -> dict[str, float] | None:
    """Record predictions, metrics and hyperparameters; return loss, metrics, mistakes and examples of the test set."""
    test, progress = None, trainer.progress
    if "test" in evaluations:
        values, logits = evaluations["test"]
        split = trainer.splits["test"]
        stats = jax.jit(Accuracy().stats)(logits, split.labels, np.ones(len(split), bool))
        mistakes = len(split) - int(stats["sum"])
        test = select_scalars(values) | Accuracy().compute(stats) | {"mistakes": mistakes, "examples": len(split)}
        if is_main_process():
            _record_predictions(trainer, "test", np.argmax(logits, axis=1))
        if trainer.curve_split != "test":  # where it is, the last epoch has recorded it
            trainer.record(Record(progress.steps_done, progress.epochs_done, "test", "epoch", test))
    results = {f"test_{name}": test[name] for name in ("accuracy", "loss") if name in test} if test else {}
    choices = HyperParameters(flatten(to_json(trainer.config)), results)
    trainer.record(Record(progress.steps_done, progress.epochs_done, "", "epoch", {"choices": choices}))
    return test


def _record_predictions(trainer: Trainer, name: str, predictions: np.ndarray) -> None:
    """Record some predictions and, for not too many classes, the confusion matrix."""
    split = trainer.splits[name]
    some, names = split.sample_indices(GRID), split.class_names
    grid = plot_prediction_grid(split.images[some], split.labels[some], predictions[some], names)
    pictures: dict[str, Any] = {"predictions": Image(to_pixels(grid))}
    if len(names) <= MAX_CLASSES:
        matrix = count_confusions(split.labels, predictions, len(names))
        pictures["confusion"] = Image(to_pixels(plot_confusion_matrix(matrix.toarray(), names)))
    trainer.record(Record(trainer.progress.steps_done, trainer.progress.epochs_done, name, "epoch", pictures))
