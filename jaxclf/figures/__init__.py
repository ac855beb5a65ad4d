"""Pictures: pure functions from arrays to a matplotlib Figure, or to pixels. Importing them leaves matplotlib alone."""

from jaxclf.figures.axes import RIGHT, WRONG, save
from jaxclf.figures.curves import learning_rate_curve
from jaxclf.figures.examples import Judged, image_grid, one_hot_figure, prediction_grid, seen_and_unseen, tile
from jaxclf.figures.maps import explanation_grid, explanation_strip, gradient_study

__all__ = [
    "RIGHT",
    "WRONG",
    "Judged",
    "explanation_grid",
    "explanation_strip",
    "gradient_study",
    "image_grid",
    "learning_rate_curve",
    "one_hot_figure",
    "prediction_grid",
    "save",
    "seen_and_unseen",
    "tile",
]
