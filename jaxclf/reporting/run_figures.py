"""The pictures `eval.py` draws of a run: the studies', and what a network looks like inside."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxclf.inference.trained_model import TrainedModel
from jaxclf.models.feature_maps import feature_maps, filters, pixel_weights
from jaxclf.reporting.figures import (
    Judged,
    confusion_figure,
    curve_and_mistake,
    image_flow,
    prediction_grid,
    save,
    seen_and_unseen,
    training_curves,
    weight_images,
)
from jaxclf.reporting.figures.confusion import MOST
from jaxclf.runs.directory import read_metrics
from jaxclf.types import Split

if TYPE_CHECKING:
    from jaxclf.reporting.figures.axes import Figure

GRID = 9  # pictures in a grid
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


def write_pictures(
    run: TrainedModel, split: Split, name: str, predictions: np.ndarray, matrix: np.ndarray
) -> list[Path]:
    """Draw what there is to draw of the split of that name; what an earlier evaluation left besides is removed."""
    directory = run.directory.path
    drawn = dict(of_predictions(split, predictions))
    if name != "train":
        drawn["seen_and_unseen"] = comparison(run, split, predictions)
    drawn |= dict(of_training(read_metrics(run.directory), split, predictions))
    drawn |= dict(of_network(run, split))
    if len(matrix) <= MOST:
        drawn["confusion"] = confusion_figure(matrix, split.class_names, f"Confusion, {name}: {len(split):,} images")
    for each in NAMES:
        if each not in drawn:
            (directory / f"{each}.png").unlink(missing_ok=True)
    return [save(drawn[each], directory / f"{each}.png") for each in NAMES if each in drawn]


def of_predictions(split: Split, predictions: np.ndarray) -> Iterator[tuple[str, Figure]]:
    """Some predictions, mistakes only, and the first mistake."""
    wrong = np.flatnonzero(predictions != split.labels)
    pictures = {
        "predictions": (split.some(GRID), "Predictions"),
        "mistakes": (wrong[:GRID], f"{len(wrong[:GRID])} of {len(wrong):,} mistakes"),
        "first_mistake": (wrong[:1], f"The first mistake: image {wrong[0] if len(wrong) else ''}"),
    }
    for name, (indices, title) in pictures.items():
        if len(indices):
            of_split = (split.images[indices], split.labels[indices], predictions[indices])
            yield name, prediction_grid(*of_split, split.class_names, title)


def comparison(run: TrainedModel, split: Split, predictions: np.ndarray) -> Figure:
    """Predictions on images the network was trained with beside those on images of the split."""
    train = run.splits.train
    chosen, others = train.some(GRID), split.some(GRID)
    seen = Judged(train.images[chosen], train.labels[chosen], run.predict(train.images[chosen]).argmax(axis=1))
    unseen = Judged(split.images[others], split.labels[others], predictions[others])
    titles = ("Images it was trained with", "Images it has not seen")
    return seen_and_unseen(seen, unseen, split.class_names, titles)


def of_training(rows: list[dict[str, Any]], split: Split, predictions: np.ndarray) -> Iterator[tuple[str, Figure]]:
    """The curves of training, and beside one of them the first mistake."""
    if not rows:
        return
    yield "curves", training_curves(rows)
    wrong = np.flatnonzero(predictions != split.labels)
    if len(wrong):
        first, names = wrong[0], split.class_names
        yield (
            "curve_and_mistake",
            curve_and_mistake(rows, split.images[wrong[:1]][0], names[predictions[first]], names[split.labels[first]]),
        )


def of_network(run: TrainedModel, split: Split) -> Iterator[tuple[str, Figure]]:
    """The weights of a linear classifier as images; the way of the first image through convolutions."""
    weights = pixel_weights(run.variables, run.image_shape)
    if weights is not None:
        yield "weights", weight_images(weights, run.class_names)
    maps = feature_maps(run.model, run.variables, split.images[:1])
    if maps:
        of_first = {name: values[0] for name, values in maps.items()}
        yield "flow", image_flow(split.images[:1][0], filters(run.variables), of_first)
