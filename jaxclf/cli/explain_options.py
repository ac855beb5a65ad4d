"""The options of `explain` with the fields of every saliency method."""

from __future__ import annotations

from dataclasses import dataclass, field, make_dataclass
from typing import Annotated, Any

import tyro

from jaxclf.cli.options import ExplainOptions
from jaxclf.saliency.names import METHODS

MethodOptions: Any = make_dataclass(
    "MethodOptions", [(name.replace("-", "_"), cls, cls()) for name, cls in METHODS.items()], frozen=True
)


@dataclass(frozen=True, kw_only=True)
class ExplainMethodOptions(ExplainOptions):
    """Compute saliency maps of a run's predictions. Writes explanations.npz, explanations.json and figures."""

    fields: Annotated[object, tyro.conf.arg(name="")] = field(default_factory=MethodOptions)
