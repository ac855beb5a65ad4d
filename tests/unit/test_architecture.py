"""The structure of the package: which folder may import which, and how large and plain the code stays."""

import ast
import importlib
import inspect
import re
from dataclasses import is_dataclass
from pathlib import Path

import pytest
from support.components import (
    ATTENTION_METHODS,
    AUGMENTATIONS,
    DATASETS,
    EVALUATION_TRANSFORMS,
    INITIALIZERS,
    LOSSES,
    METHODS,
    METRICS,
    MIXERS,
    MODELS,
    NORMALIZATIONS,
    OPTIMIZERS,
    RESIZINGS,
    SCHEDULES,
    inner,
)

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "jaxclf"
# A file imports only from its own family, its own group and the groups before it.
ORDER = [
    {"types", "errors", "random", "io", "xla", "figures"},
    {"augment", "losses", "metrics", "optimizers"},  # which do not import each other
    {"models"},
    {"datasets"},
    {"saliency"},
    {"pretrained"},
    {"config", "config_io"},
    {"training"},
    {"runs"},
    {"inference"},
    {"reporting"},
    {"api"},
    {"benchmark"},
    {"cli"},
    {"__init__", "__main__"},
]
RANK = {family: rank for rank, group in enumerate(ORDER) for family in group}
# Trees of the files, parsed once.
FILES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}


def find_family(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def find_imports(tree):
    """Yield the full names that a file imports, in functions and type-checking blocks too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "write imports in full"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_files_import_only_from_their_own_and_earlier_groups():
    broken = []
    for path, tree in FILES.items():
        own = find_family(path)
        for name in find_imports(tree):
            package, _, rest = name.partition(".")
            other = rest.split(".")[0]
            if package != "jaxclf" or other in ("", own, "__version__"):
                continue
            if RANK[other] > RANK[own] or RANK[other] == RANK[own] == 1:
                broken.append(f"{path.relative_to(PACKAGE)} imports {name}")
    assert broken == []


@pytest.mark.parametrize(
    ("library", "family"),
    [
        ("orbax", "training"),
        ("tensorflow", "training"),
        ("tensorboardX", "training"),
        ("matplotlib", "figures"),
        ("ray", "benchmark"),
        ("safetensors", "pretrained"),
        ("jinja2", "reporting"),
        ("gradio", "cli"),
    ],
)
def test_a_library_is_known_to_one_family(library, family):
    users = {
        find_family(path) for path, tree in FILES.items() if library in {n.split(".")[0] for n in find_imports(tree)}
    }
    assert users == {family}


def test_the_package_has_few_top_level_entries():
    entries = [path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"]
    assert len(entries) <= 26
    assert {Path(name).stem for name in entries if name != "py.typed"} - {"configs"} <= set(RANK)


def test_test_files_have_names_of_their_own():
    """pytest imports them by name: two of one name cannot be run together, as in `pytest -m "unit or integration"`."""
    names = [path.name for path in (ROOT / "tests").glob("*/test_*.py")]
    assert len(set(names)) == len(names) > 100


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_any_is_rare():
    lines = [line for path in FILES for line in path.read_text(encoding="utf-8").splitlines()]
    uses = sum(len(re.findall(r"\bAny\b", line)) for line in lines if not re.match(r"\s*(from|import) ", line))
    assert uses <= 15 * len(lines) / 1000


def test_public_functions_document_their_arguments():
    nodes = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    found = [node for tree in FILES.values() for node in ast.walk(tree) if isinstance(node, nodes)]
    assert sum("Args:" in (ast.get_docstring(node) or "") for node in found) >= 50


@pytest.mark.parametrize(
    ("family", "tested"),
    [
        ("augment", AUGMENTATIONS + MIXERS + EVALUATION_TRANSFORMS),
        ("datasets", DATASETS + RESIZINGS),
        ("losses", LOSSES),
        ("metrics", METRICS),
        ("models", MODELS + NORMALIZATIONS + INITIALIZERS),
        ("optimizers", OPTIMIZERS + SCHEDULES),
        ("saliency", [*METHODS, *map(inner, METHODS + ATTENTION_METHODS)]),
    ],
)
def test_every_component_is_in_the_list_of_its_family(family, tested):
    module = importlib.import_module(f"jaxclf.{family}")
    components = {
        cls
        for _, cls in inspect.getmembers(module, inspect.isclass)
        if is_dataclass(cls) and cls.__module__.startswith(f"jaxclf.{family}")
    }
    assert components == {type(component) for component in tested}
