"""Names of the saliency methods on the command line and in files."""

from __future__ import annotations

import re
from dataclasses import is_dataclass

from jaxclf import saliency
from jaxclf.errors import UserError, suggest_names


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
        raise UserError(
            f"there is no method {name!r}{suggest_names(name, METHODS)}\nthe methods are {', '.join(METHODS)}{more}"
        )
