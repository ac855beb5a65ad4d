"""Pictures: pure functions from arrays to a matplotlib Figure, or to pixels. Importing them leaves matplotlib alone."""

from jaxclf.reporting.figures.axes import RIGHT, WRONG, pixels, save
from jaxclf.reporting.figures.confusion import confusion_figure
from jaxclf.reporting.figures.curves import curve_and_mistake, learning_rate_curve, training_curves
from jaxclf.reporting.figures.examples import Judged, image_grid, one_hot_figure, prediction_grid, seen_and_unseen, tile
from jaxclf.reporting.figures.maps import explanation_grid, explanation_strip, gradient_study
from jaxclf.reporting.figures.network import image_flow, weight_images

__all__ = [
    "RIGHT",
    "WRONG",
    "Judged",
    "confusion_figure",
    "curve_and_mistake",
    "explanation_grid",
    "explanation_strip",
    "gradient_study",
    "image_flow",
    "image_grid",
    "learning_rate_curve",
    "one_hot_figure",
    "pixels",
    "prediction_grid",
    "save",
    "seen_and_unseen",
    "tile",
    "training_curves",
    "weight_images",
]
