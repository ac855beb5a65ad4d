"""Figures: pure functions from arrays to a matplotlib Figure, or to pixels. Importing them does not load matplotlib."""

from jaxclf.figures.attribution import plot_attribution
from jaxclf.figures.axes import RIGHT, WRONG, save, to_pixels
from jaxclf.figures.confusion import plot_confusion_matrix
from jaxclf.figures.curves import (
    plot_curve_and_mistake,
    plot_learning_curve,
    plot_learning_rate_curve,
    plot_reliability,
    plot_series,
    plot_training_curves,
)
from jaxclf.figures.examples import (
    PredictedImages,
    plot_augmented,
    plot_image_grid,
    plot_one_hot,
    plot_prediction_grid,
    plot_seen_and_unseen,
    tile,
)
from jaxclf.figures.maps import plot_explanation_grid, plot_explanation_strip, plot_gradient_study
from jaxclf.figures.network import plot_image_flow, plot_weights
from jaxclf.figures.overlay import overlay_map
from jaxclf.figures.photograph import plot_photograph

__all__ = [
    "RIGHT",
    "WRONG",
    "PredictedImages",
    "overlay_map",
    "plot_attribution",
    "plot_augmented",
    "plot_confusion_matrix",
    "plot_curve_and_mistake",
    "plot_explanation_grid",
    "plot_explanation_strip",
    "plot_gradient_study",
    "plot_image_flow",
    "plot_image_grid",
    "plot_learning_curve",
    "plot_learning_rate_curve",
    "plot_one_hot",
    "plot_photograph",
    "plot_prediction_grid",
    "plot_reliability",
    "plot_seen_and_unseen",
    "plot_series",
    "plot_training_curves",
    "plot_weights",
    "save",
    "tile",
    "to_pixels",
]
