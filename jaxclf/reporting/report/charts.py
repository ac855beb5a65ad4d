"""Charts of a page, as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from jaxclf.figures.curves import Rows, Series, plot_series, select_series
from jaxclf.reporting.report.pictures import to_svg

MAX_POINTS = 300  # of a curve: more would make the page large, and none of them could be told apart


class Chart(NamedTuple):
    """A titled figure."""

    title: str
    svg: Markup


def draw_chart(title: str, measure: str, series: Sequence[Series], legend: bool = True) -> list[Chart]:
    """Return a chart of a measure against epochs, or no chart if there is nothing to draw."""
    series = [each._replace(points=decimate_points(each.points)) for each in series]
    if not any(each.points for each in series):
        return []
    return [Chart(title, to_svg(plot_series(series, measure, legend)))]


def draw_training_charts(rows: Rows) -> list[Chart]:
    """Return charts of accuracy and loss in training, as far as rows of metrics.jsonl have them."""
    return [chart for name in ("accuracy", "loss") for chart in draw_chart(name, name, select_series(rows, name))]


def decimate_points(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """Return at most 300 evenly spaced points, including the first and the last."""
    if len(points) <= MAX_POINTS:
        return points
    return [points[round(i * (len(points) - 1) / (MAX_POINTS - 1))] for i in range(MAX_POINTS)]
