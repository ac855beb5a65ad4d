"""Curves as shapes: numbers in, places in an SVG out. `charts.html` draws them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

WIDTH, HEIGHT = 560, 300
LEFT, TOP, RIGHT, BOTTOM = 58, 14, 14, 44  # margins
MOST = 300  # points of a curve that are drawn
STEPS = (1, 2, 2.5, 5, 10)  # between ticks, times a power of ten

Point = tuple[float, float]


class Series(NamedTuple):
    """Points in the units of the axes, under a name, in the style of a CSS class."""

    name: str
    style: str
    points: Sequence[Point]


class Tick(NamedTuple):
    """A place on an axis and what is written there."""

    place: float
    text: str


class Curve(NamedTuple):
    """A series where it is drawn: a path, and its points with what is said of each."""

    name: str
    style: str
    path: str
    points: list[tuple[float, float, str, str]]


class Chart(NamedTuple):
    """Curves on a pair of axes."""

    title: str
    x_label: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    curves: list[Curve]


def chart(title: str, x_label: str, series: Sequence[Series], show: Callable[[float], str]) -> Chart | None:
    """Series on axes that just hold them, x from 0, or None where there are no points; `show` writes a y."""
    series = [each._replace(points=thinned(each.points)) for each in series if each.points]
    if not series:
        return None
    points = [point for each in series for point in each.points]
    x_values, y_values = ticks([0.0, *(x for x, _ in points)]), ticks([y for _, y in points])
    x_of = scale(x_values, LEFT, WIDTH - RIGHT)
    y_of = scale(y_values, HEIGHT - BOTTOM, TOP)
    curves = [curve(each, x_label, x_of, y_of, show) for each in series]
    x_ticks = [Tick(x_of(value), f"{value:g}") for value in x_values]
    return Chart(title, x_label, x_ticks, [Tick(y_of(value), show(value)) for value in y_values], curves)


def curve(
    series: Series,
    x_label: str,
    x_of: Callable[[float], float],
    y_of: Callable[[float], float],
    show: Callable[[float], str],
) -> Curve:
    """A series where it is drawn."""
    points = [(x_of(x), y_of(y), f"{x_label} {x:.4g}", show(y)) for x, y in series.points]
    path = "M" + "L".join(f"{x} {y}" for x, y, _, _ in points)
    return Curve(series.name, series.style, path, points)


def thinned(points: Sequence[Point]) -> Sequence[Point]:
    """Points, the first and the last among them, evenly taken where there are too many."""
    if len(points) <= MOST:
        return points
    return [points[round(place * (len(points) - 1) / (MOST - 1))] for place in range(MOST)]


def ticks(values: Sequence[float]) -> list[float]:
    """Round numbers, four to eight of them, that hold the values between the first and the last."""
    low, high = min(values), max(values)
    if low == high:
        low, high = (min(low, 0.0), max(high, 0.0)) if low else (0.0, 1.0)
    size = 10.0 ** math.floor(math.log10((high - low) / 5))
    step = next(factor * size for factor in STEPS if (high - low) / (factor * size) <= 5.5)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(place * step, 12) for place in range(first, last + 1)]


def scale(values: Sequence[float], begin: int, end: int) -> Callable[[float], float]:
    """The way from the first and last of some values to two places, in tenths of a pixel."""
    low, high = values[0], values[-1]
    return lambda value: round(begin + (value - low) / (high - low) * (end - begin), 1)
