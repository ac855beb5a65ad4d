"""The pages of the documentation: their links, and that they list every command and option."""

import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest

from jaxclf.cli.app import COMMANDS, OPTIONS, parse_options
from jaxclf.cli.train_options import TrainOptions
from jaxclf.config import Config
from jaxclf.training.callbacks import Callback
from jaxclf.training.distributed import Processes

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
NAMES = {
    "imports": "import",
    "evaluation_transform": "evaluation_transform.size",
    "fields": "set",
    "fast_convolutions": "no-fast-convolutions",
}  # of options, where not the field's
WITHOUT_OPTION = {"run", "runs", "paths", "images", "source", "folder", "config", "configs", "name", "processes"} | {
    "metrics",
    "augment",
    "mixup",
}


def read_text(page):
    """A page without its blocks of code."""
    return re.sub("```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)


def find_anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall("^#+ (.*)$", read_text(page), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def list_commands():
    """The commands of jaxclf in the shell blocks of all pages."""
    for page in PAGES:
        for block in re.findall("```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.S):
            for line in block.replace("\\\n", " ").splitlines():
                for part in re.split(r"&&|\|", line):
                    words = shlex.split(part, comments=True)
                    if words[:1] == ["jaxclf"] and "--help" not in words:
                        yield pytest.param(words[1], words[2:], id=f"{page.name}: {' '.join(words)}")


@pytest.mark.parametrize(("name", "arguments"), list(list_commands()))
def test_commands_are_understood(name, arguments, monkeypatch):
    monkeypatch.chdir(ROOT)
    parse_options(name, arguments)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for pair in re.findall(r'\]\(([^)\s]+)\)|src="([^"]+)"', read_text(page)):
        path, _, anchor = "".join(pair).partition("#")
        if path.startswith("http"):
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {path}"
        assert not anchor or anchor in find_anchors(target), f"{page.name} links to {path}#{anchor}"


@pytest.mark.parametrize("options", [*OPTIONS.values(), TrainOptions, Config, Processes], ids=lambda cls: cls.__name__)
def test_every_option_is_on_its_page(options):
    text = (ROOT / "docs/cli.md").read_text()
    for field in fields(options):
        if field.name not in WITHOUT_OPTION and not (
            options is Config and field.name in ("dataset", "model", "optimizer", "loss")
        ):
            assert f"`--{NAMES.get(field.name, field.name).replace('_', '-')}" in text, field.name


def test_every_command_and_hook_is_on_its_page():
    commands, extending = (ROOT / f"docs/{name}.md" for name in ("cli", "extending"))
    assert {f"`jaxclf {name}`" for name in COMMANDS} <= set(re.findall("`[^`]*`", commands.read_text()))
    hooks = {name for name in vars(Callback) if not name.startswith("_")}
    assert hooks == set(re.findall(r"^\| `(\w+)\(", extending.read_text(), re.M))


def test_the_readme_is_short():
    readme = (ROOT / "README.md").read_text()
    assert len(readme.splitlines()) <= 150
    (example,) = re.findall("```python\n(.*?)```", readme, re.S)
    assert len([line for line in example.splitlines() if line]) <= 12
    (tree,) = re.findall("```\n(train.py.*?)```", readme, re.S)
    assert len(tree.splitlines()) <= 25
