"""The law of the house: who may import whom, read from the source."""

import ast
import importlib
import inspect
from dataclasses import is_dataclass
from pathlib import Path

import pytest
from test_augment import AUGMENTATIONS, MIXERS
from test_datasets import DATASETS
from test_losses import LOSSES
from test_metrics import METRICS
from test_models import MODELS
from test_optimizers import OPTIMIZERS, SCHEDULES
from test_saliency import METHODS, inner

PACKAGE = Path(__file__).parents[2] / "jaxclf"
# A module imports from lower layers and from its own family; modules of layer 1 are families of their own.
LAYERS = {
    "types": 0,
    "files": 0,
    "statistics": 0,
    "tables": 0,
    "npz": 0,
    "program": 0,
    "convolutions": 0,
    "progress": 0,
    "lock": 0,
    "manifest": 0,
    "signals": 0,
    "augment": 1,
    "calibration": 1,
    "datasets": 1,
    "figures": 1,
    "losses": 1,
    "metrics": 1,
    "models": 1,
    "optimizers": 1,
    "saliency": 1,
    "writers": 1,
    "pipeline": 2,
    "step": 2,
    "devices": 2,
    "launch": 2,
    "profiling": 2,
    "config": 3,
    "recipe": 3,
    "checkpoint": 3,
    "artifact": 3,
    "run": 3,
    "search": 3,
    "evaluation": 4,
    "explanation": 4,
    "prediction": 4,
    "model_card": 4,
    "loop": 4,
    "interval_log": 4,
    "report": 4,
    "training_progress": 4,
    "cells": 4,
    "benchmark": 4,
    "learning_rate_range": 4,
    "commands": 5,
    "__init__": 5,
}
MODULES = sorted(PACKAGE.rglob("*.py"))


def family(path):
    """The part of the package a file belongs to; a `__main__` is an entry point."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return "commands" if parts[-1] == "__main__" else parts[0]


def imports(path):
    """The families of jaxclf a file imports, functions and type-checking blocks included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports in full"
            names = [node.module]
            if node.module == "jaxclf":
                names = [f"jaxclf.{alias.name}" for alias in node.names]
        yield from (name.split(".")[1] for name in names if name.startswith("jaxclf."))


def test_every_module_has_a_layer():
    assert {family(path) for path in MODULES} == set(LAYERS)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_from_below_or_its_own_family(path):
    own = family(path)
    for other in set(imports(path)) - {own}:
        below = LAYERS[other] < LAYERS[own]
        beside = LAYERS[other] == LAYERS[own] != 1
        assert below or beside, f"{path.name} (layer {LAYERS[own]}) imports {other} (layer {LAYERS[other]})"


@pytest.mark.parametrize(
    ("library", "only"),
    [
        ("orbax", {"checkpoint"}),
        ("tensorflow", {"pipeline"}),
        ("tensorboardX", {"writers"}),
        ("matplotlib", {"figures"}),
        ("ray", {"cells"}),
        ("safetensors", {"artifact"}),
        ("jinja2", {"report"}),
        ("gradio", {"commands"}),
    ],
)
def test_a_library_is_known_to_one_family(library, only):
    users = set()
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.split(".")[0] == library for name in names):
                users.add(family(path))
    assert users == only


@pytest.mark.parametrize(
    ("family", "tested"),
    [
        ("augment", AUGMENTATIONS + MIXERS),
        ("datasets", DATASETS),
        ("losses", LOSSES),
        ("metrics", METRICS),
        ("models", MODELS),
        ("optimizers", OPTIMIZERS + SCHEDULES),
        ("saliency", [*METHODS, *map(inner, METHODS)]),
    ],
)
def test_every_component_is_tested_for_the_law_of_its_family(family, tested):
    module = importlib.import_module(f"jaxclf.{family}")
    components = {
        cls
        for _, cls in inspect.getmembers(module, inspect.isclass)
        if is_dataclass(cls) and cls.__module__.startswith(f"jaxclf.{family}")
    }
    assert components == {type(component) for component in tested}
