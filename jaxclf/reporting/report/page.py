"""Pages: one HTML file each, from the templates beside this file, which needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from jaxclf.io.files import whole
from jaxclf.reporting.figures import RIGHT, WRONG
from jaxclf.reporting.report import charts
from jaxclf.reporting.stats import Estimate


def rendered(template: str, values: Mapping[str, Any]) -> bytes:
    """A page in UTF-8. A surrogate, which stands for what was no text in a name, is written as an escape."""
    return environment().get_template(template).render(values).encode("utf-8", "backslashreplace")


def write_page(path: Path, page: bytes) -> Path:
    """Write a page whole; gives back the path."""
    with whole(path) as partial:
        partial.write_bytes(page)
    return path


@cache
def environment() -> Environment:
    """The templates, which escape every value, and what they share."""
    made = Environment(
        autoescape=True,
        loader=FunctionLoader(template_text),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "breakable": lambda name: Markup("_<wbr>").join(name.split("_")),
        "count": lambda value: f"{value:,}",
        "number": number,
        "percent": percent,
        "percent0": lambda value: percent(value, 0),
        "seconds": lambda value: f"{value:,.1f}",
        "spread": spread,
        "surely": surely,
        "whole": lambda value: f"{value:,.0f}",
    }
    size = {name: getattr(charts, name.upper()) for name in ("width", "height", "left", "top", "right", "bottom")}
    made.globals |= {"size": size, "points": charts.MOST, "right": RIGHT, "wrong": WRONG, "version": version("jaxclf")}
    return made


def template_text(name: str) -> str:
    """The text of a template."""
    return resources.files("jaxclf.reporting.report").joinpath("templates", name).read_text(encoding="utf-8")


def number(value: float | None) -> str:
    """A number in four digits; none is empty."""
    return "" if value is None else f"{value:.4g}"


def percent(value: float | None, digits: int = 2) -> str:
    """A share in percent; none is empty."""
    return "" if value is None else f"{value:.{digits}%}"


def surely(value: float) -> str:
    """A probability in percent; what is not quite none or all does not look like it."""
    return "<0.1%" if 0 < value < 0.001 else ">99.9%" if 0.999 < value < 1 else f"{value:.1%}"


def spread(value: Estimate) -> str:
    """Half of the 95 % interval of a mean, where there is one."""
    return "" if value.half_width is None else f"± {value.half_width:.2g}"
