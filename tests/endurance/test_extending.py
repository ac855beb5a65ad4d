"""The examples of docs/extending.md."""

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/extending.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A directory with the modules of the page."""
    folder = tmp_path_factory.mktemp("extending")
    for name, content in re.findall(r"```python\n# (\w+\.py)\n(.*?)```", PAGE, re.S):
        (folder / name).write_text(content)
    return folder


def test_a_dataset_a_model_a_metric_and_a_writer(command, folder):
    commands = [line for block in re.findall("```sh\n(.*?)```", PAGE, re.S) for line in block.splitlines()]
    assert len(commands) == 3
    for line in commands:
        python, script, *words = shlex.split(line)
        assert python == "python"
        done = command(ROOT / script, *words, cwd=folder)
        assert (done.returncode, done.stderr) == (0, ""), (line, done.stderr)
    losses = (folder / "runs/written/losses.csv").read_text().splitlines()
    assert all(re.fullmatch(r"\d+,(train|test),\d+\.\d+(e-\d+)?", line) for line in losses)
    assert {line.split(",")[1] for line in losses} == {"train", "test"}


def test_a_callback(command, folder):
    (example,) = re.findall(r"```python\n(import jaxclf\n.*?)```", PAGE, re.S)
    done = command("-W", "error", "-c", f"{example}\nprint('epochs', run.summary['epochs'])", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "epochs 1\n" in done.stdout
