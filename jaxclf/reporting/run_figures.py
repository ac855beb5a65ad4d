"""The figures that `eval.py` writes into a run directory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxclf.figures import (
    PredictedImages,
    plot_confusion_matrix,
    plot_curve_and_mistake,
    plot_image_flow,
    plot_prediction_grid,
    plot_seen_and_unseen,
    plot_training_curves,
    plot_weights,
    save,
)
from jaxclf.figures.confusion import MAX_CLASSES
from jaxclf.figures.text import shorten_names
from jaxclf.inference.trained_model import TrainedModel
from jaxclf.models.feature_maps import compute_feature_maps, get_filters, get_pixel_weights
from jaxclf.runs.directory import read_metrics
from jaxclf.types import Split

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from jaxclf.figures.axes import Figure

GRID = 9  # images of a grid
MAX_CONVOLUTIONS = 24  # of a network whose feature maps fit into one figure
NAMES = (
    "predictions",
    "mistakes",
    "first_mistake",
    "seen_and_unseen",
    "curves",
    "curve_and_mistake",
    "confusion",
    "weights",
    "flow",
)


def write_figures(
    directory: Path, run: TrainedModel, split: Split, name: str, predictions: np.ndarray, matrix: csr_array
) -> list[Path]:
    """Write all figures that apply to a run and a split, and remove those an earlier evaluation left.

    Args:
        directory: Where they are written.
        run: The trained model.
        split: The evaluated split.
        name: Its name.
        predictions: Predicted classes [n].
        matrix: Confusion matrix [true, predicted].

    Returns:
        The written files.
    """
    figures = dict(_plot_predictions(split, predictions))
    if name != "train" and run.config.dataset is not None:  # pretrained weights have seen none of the images
        figures["seen_and_unseen"] = _plot_seen_and_unseen(run, split, predictions)
    figures |= dict(_plot_training(run, split, predictions))
    figures |= dict(_plot_network(run, split))
    if len(split.class_names) <= MAX_CLASSES:
        title = f"Confusion matrix, {name}: {len(split):,} images"
        figures["confusion"] = plot_confusion_matrix(matrix.toarray(), split.class_names, title)
    for each in NAMES:
        if each not in figures:
            (directory / f"{each}.png").unlink(missing_ok=True)
    return [save(figures[each], directory / f"{each}.png") for each in NAMES if each in figures]


def _plot_predictions(split: Split, predictions: np.ndarray) -> Iterator[tuple[str, Figure]]:
    """Plot some predictions, some mistakes and the first mistake."""
    wrong = np.flatnonzero(predictions != split.labels)
    grids = {
        "predictions": (split.sample_indices(GRID), "Predictions"),
        "mistakes": (wrong[:GRID], f"{len(wrong[:GRID])} of {len(wrong):,} mistakes"),
        "first_mistake": (wrong[:1], f"The first mistake: image {wrong[0] if len(wrong) else ''}"),
    }
    for name, (indices, title) in grids.items():
        if len(indices):
            of_split = (split.images[indices], split.labels[indices], predictions[indices])
            yield name, plot_prediction_grid(*of_split, split.class_names, title)


def _plot_seen_and_unseen(run: TrainedModel, split: Split, predictions: np.ndarray) -> Figure:
    """Plot predictions on training images beside predictions on images of the split."""
    train = run.splits.train
    trained, others = train.sample_indices(GRID), split.sample_indices(GRID)
    images = train.images[trained]
    seen = PredictedImages(images, train.labels[trained], run.predict(images).argmax(axis=1))
    unseen = PredictedImages(split.images[others], split.labels[others], predictions[others])
    return plot_seen_and_unseen(seen, unseen, split.class_names, ("Training images", "Unseen images"))


def _plot_training(run: TrainedModel, split: Split, predictions: np.ndarray) -> Iterator[tuple[str, Figure]]:
    """Plot the curves of training, and one of them beside the first mistake."""
    rows = read_metrics(run.directory)
    if not rows:
        return
    yield "curves", plot_training_curves(rows)
    wrong = np.flatnonzero(predictions != split.labels)
    if len(wrong):
        names = shorten_names(split.class_names)
        predicted, true = (names[labels[wrong[0]]] for labels in (predictions, split.labels))
        yield "curve_and_mistake", plot_curve_and_mistake(rows, split.images[wrong[:1]][0], predicted, true)


def _plot_network(run: TrainedModel, split: Split) -> Iterator[tuple[str, Figure]]:
    """Plot the weights of a linear classifier, or the feature maps of the first image in a convolutional network."""
    weights = get_pixel_weights(run.variables, run.input_shape)
    if weights is not None:
        yield "weights", plot_weights(weights, run.class_names)
    filters = get_filters(run.variables)
    if 0 < len(filters) <= MAX_CONVOLUTIONS:
        images = run.transform(split.images[:1])
        maps = compute_feature_maps(run.model, run.variables, images)
        of_first = {name: values[0] for name, values in maps.items()}
        yield "flow", plot_image_flow(images[0], filters, of_first)
