"""The page about saliency: it shows every method, and its commands and its Python run."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from support.cli import explain

from jaxclf.saliency.names import METHODS

PAGE = Path(__file__).parents[2] / "docs/saliency.md"


@pytest.fixture
def as_the_page_says(colour_run, tmp_path, monkeypatch):
    """The page, in a directory where the run it speaks of is a small one."""
    shutil.copytree(colour_run, tmp_path / "runs/mnist_cnn")
    monkeypatch.chdir(tmp_path)
    return PAGE.read_text()


def test_the_page_shows_every_method():
    for name, cls in METHODS.items():
        assert f"**`{cls.__name__}(" in PAGE.read_text()
        assert f"![{name}](saliency/{name}.png)" in PAGE.read_text()
        assert (PAGE.parent / f"saliency/{name}.png").stat().st_size < 60_000


def test_the_python_of_the_page_runs(as_the_page_says):
    blocks = re.findall(r"```python\n(.*?)```", as_the_page_says, re.S)
    blocks = [block for block in blocks if "saliency.adapt_" not in block]  # test_saliency_adapters.py runs those
    assert len(blocks) >= 4
    exec("".join(blocks), {})


def test_the_commands_of_the_page_run(as_the_page_says):
    blocks = "".join(re.findall(r"```sh\n(.*?)```", as_the_page_says, re.S)).replace("\\\n", " ")
    commands = [shlex.split(line, comments=True) for line in blocks.splitlines()]
    assert len(commands) >= 5
    # What takes minutes is run by test_benchmark_saliency.py with a small network.
    commands = [words for words in commands if "cartoons" not in "".join(words)]
    for program, command, *arguments in commands:
        assert (program, command) == ("jaxclf", "explain")
        assert explain(arguments) == 0
