"""Pages: self-contained HTML files made from the templates beside this file."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from jaxclf.figures import RIGHT, WRONG
from jaxclf.io.files import atomic_write
from jaxclf.io.formatting import format_number, format_percent
from jaxclf.reporting.stats import Estimate


def render(template: str, values: Mapping[str, Any]) -> bytes:
    """Render a template to UTF-8. Surrogates, which stand for undecodable bytes of a name, become escapes."""
    return get_environment().get_template(template).render(values).encode("utf-8", "backslashreplace")


def write_page(path: Path, page: bytes) -> Path:
    """Write a page atomically and return its path."""
    with atomic_write(path) as partial:
        partial.write_bytes(page)
    return path


@cache
def get_environment() -> Environment:
    """Return the environment of the templates. HTML templates escape every value."""
    environment = Environment(
        autoescape=lambda name: name is None or not name.endswith(".md"),
        loader=FunctionLoader(_read_template),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "breakable": lambda name: Markup("_<wbr>").join(name.split("_")),
        "count": lambda value: f"{value:,}",
        "half_width": _format_half_width,
        "number": format_number,
        "percent": format_percent,
        "percent0": lambda value: format_percent(value, 0),
        "probability": format_probability,
        "seconds": lambda value: f"{value:,.1f}",
        "whole": lambda value: f"{value:,.0f}",
    }
    environment.globals |= {"right": RIGHT, "wrong": WRONG, "version": version("jaxclf")}
    return environment


def _read_template(name: str) -> str:
    """Return the text of a template."""
    return resources.files("jaxclf.reporting.report").joinpath("templates", name).read_text(encoding="utf-8")


def format_probability(value: float) -> str:
    """Format a probability in percent. Values close to 0 and 1 are not rounded to them."""
    return "<0.1%" if 0 < value < 0.001 else ">99.9%" if 0.999 < value < 1 else f"{value:.1%}"


def _format_half_width(value: Estimate) -> str:
    """Format half the width of a confidence interval; empty if there is none."""
    return "" if value.half_width is None else f"± {value.half_width:.2g}"
