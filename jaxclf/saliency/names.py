"""Names of the saliency methods on the command line and in files."""

from __future__ import annotations

import difflib
import re
from dataclasses import is_dataclass

from jaxclf import saliency
from jaxclf.errors import UserError


def get_name(cls: type[saliency.Method]) -> str:
    """Return the name of a class in lower case with hyphens: `integrated-gradients`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "-", cls.__name__).lower()


METHODS: dict[str, type[saliency.Method]] = {
    get_name(cls): cls
    for cls in (getattr(saliency, name) for name in saliency.__all__)
    if isinstance(cls, type)
    and issubclass(cls, saliency.Method)
    and is_dataclass(cls)
    and cls is not saliency.AllClasses
}
"""The methods of `jaxclf.saliency` by name. All their fields have defaults."""


def check_name(name: str, more: str = "") -> None:
    """Raise UserError if there is no method of this name. The text `more` ends the list of methods."""
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"there is no method {name!r}{hint}\nthe methods are {', '.join(METHODS)}{more}")
