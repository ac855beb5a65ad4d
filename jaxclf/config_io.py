"""Configs as data: JSON, Python files, and the differences between two of them.

JSON names classes; it cannot make one be imported or run. Only classes of the component families of jaxclf, or of
modules the user names, that have been imported already are looked up.
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
    f"jaxclf.{name}" for name in ("augment", "config", "datasets", "losses", "metrics", "models", "optimizers")
)

MOVED = {  # class paths in the config.json of earlier versions
    "jaxclf.augment.Shift": "jaxclf.augment.geometric.Shift",
    "jaxclf.augment.Flip": "jaxclf.augment.geometric.Flip",
    "jaxclf.augment.Rotate": "jaxclf.augment.geometric.Rotate",
    "jaxclf.augment.Cutout": "jaxclf.augment.cutout.Cutout",
    "jaxclf.augment.Mixup": "jaxclf.augment.mixup.Mixup",
}


def component_fields(component: Any) -> dict[str, Any]:
    """The fields of a component by name, without those Linen adds to its modules."""
    hidden = {"parent", "name"} if isinstance(component, nn.Module) else set()
    return {field.name: getattr(component, field.name) for field in fields(component) if field.name not in hidden}


def to_json(value: Any) -> Any:
    """A component, or a value of one of its fields, as JSON data."""
    if is_dataclass(value) and not isinstance(value, type):
        cls = type(value)
        return {"class": f"{cls.__module__}.{cls.__qualname__}"} | {
            name: to_json(field) for name, field in component_fields(value).items()
        }
    if isinstance(value, tuple):
        return [to_json(item) for item in value]
    if value is None or isinstance(value, int | float | str):
        return value
    raise UserError(f"{value!r} is a {type(value).__name__}; a config holds numbers, strings, tuples and components")


def from_json(data: Any, imports: tuple[str, ...] = ()) -> Any:
    """The component that `to_json` wrote. Raises UserError at anything else; `imports` are modules to trust too."""
    if isinstance(data, list):
        return tuple(from_json(item, imports) for item in data)
    if not isinstance(data, dict):
        return data
    cls = _component_class(data.get("class"), imports)
    arguments = {name: from_json(value, imports) for name, value in data.items() if name != "class"}
    try:
        return cls(**arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"{data['class']} cannot be built from {sorted(arguments)}: {error}") from error


def _component_class(path: Any, imports: tuple[str, ...]) -> type:
    module, _, name = MOVED.get(str(path), str(path)).rpartition(".")
    if not is_within(module, (*FAMILIES, *imports)):
        raise UserError(f"class {path!r} is not one of jaxclf; if you trust it, add --import {module or path}")
    if imports and module not in sys.modules:
        raise UserError(f"class {path!r} is in a module that is not imported; add --import {module}")
    cls = vars(sys.modules[module]).get(name) if module in sys.modules else None
    if not (isinstance(cls, type) and is_dataclass(cls) and cls.__module__ == module):
        raise UserError(f"there is no component {path!r}; was it written by another version?")
    return cls


def is_within(module: str, packages: tuple[str, ...]) -> bool:
    """Whether the module is one of the packages, or in one of them."""
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def import_modules(names: tuple[str, ...]) -> None:
    """Import the modules a user names with --import, from the current directory too."""
    if names and str(Path.cwd()) not in sys.path:
        # Behind all others: a file in a run directory must not stand in for a library.
        sys.path.append(str(Path.cwd()))
    for name in names:
        with mistakes_in(f"--import {name}"):
            importlib.import_module(name)


@contextmanager
def mistakes_in(source: str) -> Iterator[None]:
    """What goes wrong in code of the user's is the user's to mend."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise UserError(f"{source}: {type(error).__name__}: {error} ({place.filename}, line {place.lineno})") from error


def read_config(path: str) -> Config:
    """The config of a Python file with `get_config()`, or of one that comes with jaxclf (`mnist_cnn`)."""
    file = _find_config(path).absolute()
    # As if it were run: its neighbours can be imported, and so can it, unless the name is another's.
    if str(file.parent) not in sys.path:
        sys.path.insert(0, str(file.parent))
    known = sys.modules.get(file.stem)
    name = file.stem if known is None or getattr(known, "__file__", None) == str(file) else f"config_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec and spec.loader
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    with mistakes_in(str(file)):
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
    raise UserError(f"no config at {file.absolute()}\ngive a Python file, or one of {', '.join(sorted(known))}")


def flatten(data: Any, prefix: str = "") -> dict[str, Any]:
    """JSON data as dotted names and plain values: `{"optimizer.learning_rate": 0.001, …}`."""
    if isinstance(data, dict):
        items = data.items()
    elif isinstance(data, list) and any(isinstance(item, dict) for item in data):
        items = enumerate(data)
    else:
        return {prefix: MOVED.get(data, data) if prefix.rpartition(".")[2] == "class" else data}
    flat = [flatten(value, f"{prefix}.{name}" if prefix else str(name)) for name, value in items]
    return {name: value for part in flat for name, value in part.items()}


def differences(old: Any, new: Any) -> list[str]:
    """A line for each field in which two configs, as JSON data, differ."""
    a, b = flatten(old), flatten(new)
    missing = "(absent)"
    return [
        f"{name}: {json.dumps(a.get(name, missing))} -> {json.dumps(b.get(name, missing))}"
        for name in sorted(a.keys() | b.keys())
        if a.get(name, missing) != b.get(name, missing)
    ]
