"""Options with the fields of every saliency method, and the methods that they select."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, make_dataclass
from typing import Annotated, Any

import tyro

from jaxclf import saliency
from jaxclf.cli.app import FLAGS
from jaxclf.cli.options import BenchmarkSaliencyOptions, ExplainOptions
from jaxclf.config_io import flatten, to_json
from jaxclf.errors import UserError, require
from jaxclf.inference.explain import find_error
from jaxclf.inference.trained_model import TrainedModel
from jaxclf.saliency.names import METHODS, check_name

MethodOptions: Any = make_dataclass(
    "MethodOptions", [(name.replace("-", "_"), cls, cls()) for name, cls in METHODS.items()], frozen=True
)


@dataclass(frozen=True, kw_only=True)
class ExplainMethodOptions(ExplainOptions):
    """Compute saliency maps of a run's predictions. Writes explanations.npz, explanations.json and figures."""

    fields: Annotated[object, tyro.conf.arg(name="")] = field(default_factory=MethodOptions)


@dataclass(frozen=True, kw_only=True)
class BenchmarkMethodOptions(BenchmarkSaliencyOptions):
    """Score saliency methods on runs against the exact Shapley values of the parts of images."""

    fields: Annotated[object, tyro.conf.arg(name="")] = field(default_factory=MethodOptions)


WITH_FIELDS = {ExplainOptions: ExplainMethodOptions, BenchmarkSaliencyOptions: BenchmarkMethodOptions}
"""Options of commands, and the same with the fields of methods."""


def select_methods(names: Collection[str], fields: Any) -> dict[str, saliency.Method]:
    """Return methods with their fields from the command line, by name.

    Args:
        names: Names of methods, or "all".
        fields: The methods of the options, with the fields that are set.

    Raises:
        UserError: For a wrong name, and for a field of a method that is not selected.
    """
    names = tuple(METHODS) if "all" in names else tuple(names)
    for name in names:
        check_name(name, more=", or all")
    methods = {name: getattr(fields, name.replace("-", "_")) for name in METHODS}
    for name, cls in METHODS.items():
        require(
            name in names or methods[name] == cls(),
            f"a field of {name} is set, but the method is not selected; add it: --methods {' '.join((*names, name))}",
        )
    return {name: methods[name] for name in names}


def leave_out_unsupported(
    methods: Mapping[str, saliency.Method], run: TrainedModel, named: Collection[str]
) -> dict[str, saliency.Method]:
    """Return the methods that support the network of a run.

    Args:
        methods: The methods by name.
        run: The run.
        named: What the command line names. The reason why a method is left out is printed, if it names any.

    Raises:
        UserError: If a method that is named does not support the network.
    """
    supported = {}
    for name, method in methods.items():
        reason = find_error(run, method)
        if reason is None:
            supported[name] = method
        elif name in named:
            raise UserError(f"{name}: {reason}") from reason
        elif named:
            print(f"{name} left out: {reason}", file=sys.stderr)
    return supported


def suggest_option(argument: str, options: ExplainMethodOptions | BenchmarkMethodOptions) -> str:
    """Suggest the option or field of a method that an unknown argument most resembles, as text for an error."""
    from jaxclf.cli.train_options import find_similar

    names = [FLAGS.get(field.name, field.name) for field in fields(options) if field.name != "fields"]
    for method, value in vars(options.fields).items():
        names += [f"{method}.{name}" for name in flatten(to_json(value)) if name.rpartition(".")[2] != "class"]
    return find_similar(argument.lstrip("-").partition("=")[0].replace("-", "_"), names)
