"""A run as one value: `Config`, read from a Python file, changed by the command line, kept as JSON.

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
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

import flax.linen as nn

import jaxclf.models  # noqa: F401 - JSON can name only what is imported
from jaxclf.augment import Augmentation, Mixup
from jaxclf.datasets import Dataset
from jaxclf.losses import CrossEntropy, Loss
from jaxclf.metrics import Accuracy, Metric
from jaxclf.optimizers import Optimizer
from jaxclf.pipeline import Remainder
from jaxclf.types import UserError

FAMILIES = tuple(
    f"jaxclf.{name}" for name in ("augment", "config", "datasets", "losses", "metrics", "models", "optimizers")
)
COUNTS = ("epochs", "batch_size", "gradient_accumulation", "steps_per_execution", "eval_batch_size", "log_every")


@dataclass(frozen=True)
class Config:
    """Everything a run's result depends on."""

    dataset: Dataset
    """Where images and labels come from."""
    model: nn.Module
    """The network."""
    optimizer: Optimizer
    """How gradients change the parameters."""
    epochs: int
    """Passes over the training images."""
    batch_size: int
    """Images of one optimiser update, over all devices."""
    loss: Loss = CrossEntropy()
    """What is minimised."""
    metrics: tuple[Metric, ...] = (Accuracy(),)
    """What is reported beside the loss."""
    augment: tuple[Augmentation, ...] = ()
    """Random changes to training images, on the device, in this order."""
    mixup: Mixup | None = None
    """Mixes every training image and its label with another one's, after the augmentations."""
    class_weights: Literal["equal", "balanced"] = "equal"
    """What a class counts for in the gradient: the same an image, or the same a class, however many images it has."""
    patience: int = 0
    """Epochs without a better validation after which training stops early; 0 never stops."""
    non_finite: Literal["abort", "skip", "rollback"] = "abort"
    """Where numbers are no longer finite: end the run, leave out the updates that are not, or go back to the last
    checkpoint and go on behind the interval."""
    remainder: Remainder = "drop"
    """What becomes of the short batch at the end of an epoch; padding counts for nothing."""
    seed: int = 0
    """Initial weights, order of the images, dropout and augmentation follow from it."""
    ema_decay: float = 0.0
    """Share of the running mean of the parameters kept each step; it is what is evaluated. 0 keeps none."""
    gradient_accumulation: int = 1
    """Equal parts a batch is computed in, to save memory; the update is the same (batch statistics apart)."""
    steps_per_execution: int = 1
    """Updates in one call of the compiled program; between calls the run logs, and may be interrupted."""
    evaluate_train: bool = False
    """After every epoch, also evaluate the whole training set."""
    eval_batch_size: int = 500
    """Images evaluated together."""
    log_every: int = 100
    """Steps between two log lines."""
    checkpoint_every: int = 0
    """Steps between two checkpoints within an epoch; 0 has them at the ends of epochs alone."""

    def __post_init__(self):
        self._check_families()
        for name in COUNTS:
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)}: expected at least 1")
        if not 0 <= self.ema_decay < 1:
            raise UserError(f"ema_decay={self.ema_decay}: expected at least 0 and below 1")
        for name in ("patience", "checkpoint_every"):
            if getattr(self, name) < 0:
                raise UserError(f"{name}={getattr(self, name)}: expected at least 0")
        if self.mixup is not None and not isinstance(self.mixup, Mixup):
            raise UserError(f"mixup holds {self.mixup!r}, which is no Mixup")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"seed={self.seed}: expected 0 to {2**32 - 1}")

    def _check_families(self) -> None:
        families: dict[str, tuple[type, tuple]] = {
            "dataset": (Dataset, (self.dataset,)),
            "model": (nn.Module, (self.model,)),
            "optimizer": (Optimizer, (self.optimizer,)),
            "loss": (Loss, (self.loss,)),
            "metrics": (Metric, self.metrics),
            "augment": (Augmentation, self.augment),
        }
        for name, (family, members) in families.items():
            for member in members:
                if not isinstance(member, family) or isinstance(member, type):
                    raise UserError(f"{name} holds {member!r}, which is no {family.__name__}")


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
    module, _, name = str(path).rpartition(".")
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
        return {prefix: data}
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
