"""Numbers as text."""

from __future__ import annotations


def format_number(value: float | int | None) -> str:
    """Format an integer with thousands separators, and other numbers in four digits; None is empty."""
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def format_percent(value: float | int | None, digits: int = 2) -> str:
    """Format a proportion in percent; None is empty."""
    return "" if value is None else f"{value:.{digits}%}"


def format_metric(name: str, value: float | int | str) -> str:
    """Format the value of a metric: accuracies in percent, and text as it is."""
    if isinstance(value, str):
        return value
    return format_percent(value) if name.endswith("accuracy") else format_number(value)


def format_value(name: str, value: float | int | str) -> str:
    """Format a metric with its name; speeds and waits with their units."""
    if name == "images_per_second":
        return f"{value:,.0f} images/s"
    if name == "data_wait_seconds":
        return f"data wait {value:.2f} s"
    return f"{name} {format_metric(name, value)}"
