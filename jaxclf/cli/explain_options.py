"""Options of `jaxclf explain` with the fields of every saliency method."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, make_dataclass
from typing import Annotated, Any

import tyro

from jaxclf.cli.options import ExplainOptions
from jaxclf.config_io import flatten, to_json
from jaxclf.saliency.names import METHODS

MethodOptions: Any = make_dataclass(
    "MethodOptions", [(name.replace("-", "_"), cls, cls()) for name, cls in METHODS.items()], frozen=True
)


@dataclass(frozen=True, kw_only=True)
class ExplainMethodOptions(ExplainOptions):
    """Compute saliency maps of a run's predictions. Writes explanations.npz, explanations.json and figures."""

    fields: Annotated[object, tyro.conf.arg(name="")] = field(default_factory=MethodOptions)


def suggest_option(argument: str, options: ExplainMethodOptions) -> str:
    """Suggest the option or field of a method that an unknown argument most resembles, as text for an error."""
    from jaxclf.cli.train_options import find_similar

    names = [{"imports": "import"}.get(field.name, field.name) for field in fields(options) if field.name != "fields"]
    for method, value in vars(options.fields).items():
        names += [f"{method}.{name}" for name in flatten(to_json(value)) if name.rpartition(".")[2] != "class"]
    return find_similar(argument.lstrip("-").partition("=")[0].replace("-", "_"), names)
