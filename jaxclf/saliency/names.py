"""Names of the methods, as commands and files have them."""

from __future__ import annotations

import difflib
import re
from dataclasses import is_dataclass

from jaxclf import saliency
from jaxclf.errors import UserError


def name_of(cls: type[saliency.Method]) -> str:
    """The name of a class as words with hyphens: `integrated-gradients`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "-", cls.__name__).lower()


METHODS: dict[str, type[saliency.Method]] = {
    name_of(cls): cls
    for cls in (getattr(saliency, name) for name in saliency.__all__)
    if isinstance(cls, type)
    and issubclass(cls, saliency.Method)
    and is_dataclass(cls)
    and cls is not saliency.AllClasses
}
"""Every method that `jaxclf.saliency` exports, by its name; all have defaults for all fields."""


def check_name(name: str, more: str = "") -> None:
    """Raise UserError where no method has this name; `more` ends the list of those there are."""
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"there is no method {name!r}{hint}\nthe methods are {', '.join(METHODS)}{more}")
