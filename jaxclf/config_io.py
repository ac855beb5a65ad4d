"""Configs as JSON and as Python files, and the differences between two configs.

Reading JSON imports and executes nothing. It looks up classes among the components of jaxclf, and among those of
modules that the user has imported with `--import`.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import flax.linen as nn

import jaxclf.models  # noqa: F401 - JSON can name only what is imported
from jaxclf.config import Config
from jaxclf.errors import UserError

FAMILIES = tuple(
    f"jaxclf.{name}"
    for name in ("augment", "config", "datasets", "losses", "metrics", "models", "optimizers", "pretrained")
)

MOVED = {  # class paths in the config.json of earlier versions
    "jaxclf.augment.Shift": "jaxclf.augment.geometric.Shift",
    "jaxclf.augment.Flip": "jaxclf.augment.geometric.Flip",
    "jaxclf.augment.Rotate": "jaxclf.augment.geometric.Rotate",
    "jaxclf.augment.Cutout": "jaxclf.augment.cutout.Cutout",
    "jaxclf.augment.Mixup": "jaxclf.augment.mixup.Mixup",
    "jaxclf.optimizers.Adam": "jaxclf.optimizers.adam.Adam",
    "jaxclf.optimizers.Constant": "jaxclf.optimizers.schedules.Constant",
    "jaxclf.optimizers.OneCycle": "jaxclf.optimizers.schedules.OneCycle",
    "jaxclf.optimizers.Sgd": "jaxclf.optimizers.sgd.Sgd",
    "jaxclf.optimizers.WarmupCosine": "jaxclf.optimizers.schedules.WarmupCosine",
}


def get_component_fields(component: Any) -> dict[str, Any]:
    """Return the fields of a component by name, without those that Linen adds to modules."""
    if hasattr(component, "get_config_fields"):  # of fields that JSON cannot hold, such as arrays
        return component.get_config_fields()
    hidden = {"parent", "name"} if isinstance(component, nn.Module) else set()
    return {field.name: getattr(component, field.name) for field in fields(component) if field.name not in hidden}


def to_json(value: Any) -> Any:
    """Convert a component, or a value of one of its fields, to JSON data.

    Args:
        value: A component, number, string, None or tuple of these.

    Returns:
        For a component, a dict of its fields and of its class path under "class".

    Raises:
        UserError: If a value is of another type.
    """
    if is_dataclass(value) and not isinstance(value, type):
        cls = type(value)
        return {"class": f"{cls.__module__}.{cls.__qualname__}"} | {
            name: to_json(field) for name, field in get_component_fields(value).items()
        }
    if isinstance(value, tuple):
        return [to_json(item) for item in value]
    if value is None or isinstance(value, int | float | str):
        return value
    raise UserError(f"{value!r} is a {type(value).__name__}; a config can have numbers, strings, tuples and components")


def from_json(data: Any, imports: tuple[str, ...] = ()) -> Any:
    """Build a component from what `to_json` has written.

    Args:
        data: JSON data. Class paths of earlier versions are mapped to the current ones.
        imports: Modules outside jaxclf whose classes may be used. They must be imported already.

    Returns:
        The component, or the value of a field.

    Raises:
        UserError: If a class is unknown or not trusted, or if its fields do not fit.
    """
    if isinstance(data, list):
        return tuple(from_json(item, imports) for item in data)
    if not isinstance(data, dict):
        return data
    cls = _find_component_class(data.get("class"), imports)
    arguments = {name: from_json(value, imports) for name, value in data.items() if name != "class"}
    try:
        return cls(**arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"{data['class']} cannot be built from {sorted(arguments)}: {error}") from error


def _find_component_class(path: Any, imports: tuple[str, ...]) -> type:
    module, _, name = MOVED.get(str(path), str(path)).rpartition(".")
    if not is_within(module, (*FAMILIES, *imports)):
        raise UserError(f"class {path!r} is not part of jaxclf; if you trust it, add --import {module or path}")
    if imports and module not in sys.modules:
        raise UserError(f"class {path!r} is in a module that has not been imported; add --import {module}")
    cls = vars(sys.modules[module]).get(name) if module in sys.modules else None
    if not (isinstance(cls, type) and is_dataclass(cls) and cls.__module__ == module):
        raise UserError(f"there is no component {path!r}; was it written by another version?")
    return cls


def is_within(module: str, packages: tuple[str, ...]) -> bool:
    """Return True if a module is one of some packages or inside one of them."""
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def import_modules(names: tuple[str, ...]) -> None:
    """Import the modules named with --import, which can be in the current directory."""
    if names and str(Path.cwd()) not in sys.path:
        # At the end, so that a file in the current directory does not shadow a library.
        sys.path.append(str(Path.cwd()))
    for name in names:
        with report_user_errors(f"--import {name}"):
            importlib.import_module(name)


@contextmanager
def report_user_errors(source: str) -> Iterator[None]:
    """Raise exceptions of the user's code as UserError, with the file and line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise UserError(f"{source}: {type(error).__name__}: {error} ({place.filename}, line {place.lineno})") from error


def read_config(path: str) -> Config:
    """Read the config of a Python file.

    Args:
        path: A Python file that defines `get_config()`, or the name of an included config, such as "mnist_cnn".

    Returns:
        What `get_config()` returns.

    Raises:
        UserError: If there is no such file, or if it does not define a config.
    """
    file = _find_config(path).absolute()
    # As if the file were run: it can import its neighbors, and can be imported itself unless its name is taken.
    if str(file.parent) not in sys.path:
        sys.path.insert(0, str(file.parent))
    known = sys.modules.get(file.stem)
    name = file.stem if known is None or getattr(known, "__file__", None) == str(file) else f"config_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec and spec.loader
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    with report_user_errors(str(file)):
        spec.loader.exec_module(module)
        config = module.get_config() if "get_config" in vars(module) else None
    if not isinstance(config, Config):
        raise UserError(f"{file} defines no get_config() that returns a jaxclf.config.Config")
    return config


def _find_config(path: str) -> Path:
    if (file := Path(path)).is_file() and file.suffix == ".py":
        return file
    package = Path(__file__).parent
    # In a wheel the configs are inside the package, in a checkout beside it.
    known = {file.stem: file for folder in (package.parent, package) for file in (folder / "configs").glob("*.py")}
    if file.stem in known and file.parent in (Path(), Path("configs")):
        return known[file.stem]
    raise UserError(f"no config at {file.absolute()}\nexpected a Python file, or one of {', '.join(sorted(known))}")


def flatten(data: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten JSON data to values by dotted name: `{"optimizer.learning_rate": 0.001, …}`."""
    if isinstance(data, dict):
        items = data.items()
    elif isinstance(data, list) and any(isinstance(item, dict) for item in data):
        items = enumerate(data)
    else:
        return {prefix: MOVED.get(str(data), data) if prefix.rpartition(".")[2] == "class" else data}
    flat = [flatten(value, f"{prefix}.{name}" if prefix else str(name)) for name, value in items]
    return {name: value for part in flat for name, value in part.items()}


def find_differences(old: Any, new: Any) -> list[str]:
    """Compare two configs.

    Args:
        old: A config as JSON data.
        new: Another one.

    Returns:
        A line `name: old value -> new value` for each field that differs.
    """
    a, b = flatten(old), flatten(new)
    missing = "(absent)"
    return [
        f"{name}: {json.dumps(a.get(name, missing))} -> {json.dumps(b.get(name, missing))}"
        for name in sorted(a.keys() | b.keys())
        if a.get(name, missing) != b.get(name, missing)
    ]
