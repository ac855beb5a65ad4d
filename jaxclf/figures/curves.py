"""Numbers against steps and learning rates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def learning_rate_curve(
    rates: np.ndarray, losses: np.ndarray, smoothed: np.ndarray, marks: Mapping[str, float], title: str
) -> Figure:
    """The loss of each step, and smoothed, against its learning rate; two rates are marked by name."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axis = figure.subplots()
    axis.plot(rates, losses, ".", color="0.75", markersize=3, label="of a batch")
    axis.plot(rates, smoothed, color="#0072b2", label="smoothed")
    for (name, rate), style in zip(marks.items(), ("--", ":"), strict=True):
        axis.axvline(rate, color="0.3", linestyle=style, label=f"{name}: {rate:.2g}")
    # What is above the first loss is not worth the room: it rises without end.
    axis.set(xscale="log", xlabel="learning rate", ylabel="loss", ylim=(0, 1.3 * smoothed[0]))
    axis.set_title(title, parse_math=False)
    axis.legend(loc="lower left")
    return figure
