"""Every config trains, and the documented networks reach what their documents say."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from jaxclf.config import read_config
from jaxclf.datasets.mnist import SHA256
from jaxclf.devices import Devices
from jaxclf.loop import Trainer

ROOT = Path(__file__).parent.parent
CONFIGS = sorted((ROOT / "configs").glob("*.py"))


@pytest.mark.parametrize(
    "path",
    # Those of the Simpsons have the network of the cartoons.
    [pytest.param(path, marks=[pytest.mark.slow] * ("simpsons" in path.stem), id=path.stem) for path in CONFIGS],
)
def test_a_few_steps_of_each_config(path, digits):
    config = read_config(str(path))
    run = Trainer(replace(config, epochs=1, log_every=2), digits, Devices.all())
    run.fit()
    assert run.progress.latest["train"]["loss"] < 10
    assert 0 <= run.progress.latest["validation"]["accuracy"] <= 1


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_each_config_states_its_command_and_its_claim(path):
    docstring = path.read_text().split('"""')[1]
    assert f"python train.py configs/{path.name}" in docstring
    if "needs the download" in docstring:
        return
    assert re.search(r"^\d\d\.\d\d( ± \d\.\d\d)? % test accuracy.*n = \d", docstring, re.M), "the measured accuracy"
    assert "core" in docstring, "the machine"


def shell_commands(text):
    """The commands of the fenced shell blocks of a page."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.S)
    return [line for block in blocks for line in block.splitlines() if line and not line.startswith("#")]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory, mnist):
    """A copy of the checkout to run the README's commands in, with a few pictures of one's own."""
    folder = tmp_path_factory.mktemp("checkout")
    for entry_point in ROOT.glob("*.py"):
        shutil.copy(entry_point, folder)
    shutil.copytree(ROOT / "configs", folder / "configs")
    for name, suffix in (("digits", "png"), ("scans", "png"), ("photos", "jpg")):
        (folder / name).mkdir()
        for i in range(3):
            Image.fromarray(mnist.test.images[i, ..., 0]).save(folder / name / f"{i}.{suffix}")
    return folder


FEWER = {  # epochs than the 30, 30, 60 and 5 of the configs
    f"python train.py configs/{name}.py": f"--epochs {epochs}"
    for name, epochs in (("cartoons_cnn", 12), ("cartoons_linear", 8), ("cartoons_overfit", 35), ("mnist_mlp_wide", 1))
}


def run_in_shell(line, cwd):
    """Run a line of shell as a user does: in a fresh process, with one device."""
    env = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    return subprocess.run(["bash", "-c", line], cwd=cwd, env=env, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_every_command_of_the_readme_runs(checkout):
    readme = (ROOT / "README.md").read_text()
    for name, content in re.findall(r"```python\n# (\w+\.py)\n(.*?)```", readme, re.S):
        (checkout / name).write_text(content)
    parts = [part.split("#")[0].strip() for line in shell_commands(readme) for part in line.split("&&")]
    commands = dict.fromkeys(part for part in parts if part.split()[0] not in ("pip", "pytest"))  # .ci/run does
    assert len(commands) >= 20
    for line in commands:
        done = run_in_shell(f"{line} {FEWER.get(line, '')}", checkout)
        assert done.returncode == 0, (line, done.stderr)
    # The first of them is the main command: the documented network, its parameters, and what it reaches.
    summary = json.loads((checkout / "runs/mnist_cnn/summary.json").read_text())
    assert (summary["parameters"], summary["steps"]) == (242_062, 430)
    assert summary["test"]["accuracy"] >= 0.976
    # The study on pictures: shapes are needed, and what is learnt by heart does not help with what is new.
    network, linear, by_heart = (
        json.loads((checkout / f"runs/cartoons_{name}/summary.json").read_text())
        for name in ("cnn", "linear", "overfit")
    )
    assert network["parameters"] == 1_337_296 + 513 * 18
    assert linear["test"]["accuracy"] < 0.4 < 0.8 < network["test"]["accuracy"]
    assert by_heart["train_full"]["accuracy"] > 0.99
    assert by_heart["test"]["accuracy"] < 0.6
    assert (checkout / "runs/cartoons_overfit/seen_and_unseen.png").is_file()


@pytest.mark.slow
def test_python_of_the_readme_runs(command, checkout):
    blocks = re.findall(r"```python\n(import jaxclf\n.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert blocks
    for block in blocks:
        done = command("-W", "error", "-c", block, cwd=checkout)
        assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_wheel_brings_data_configs_and_commands(tmp_path):
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (entry_points,) = (name for name in names if name.endswith("entry_points.txt"))
        commands = archive.read(entry_points).decode()
    assert {f"jaxclf/configs/{path.name}" for path in CONFIGS} <= names
    assert {f"jaxclf/datasets/{name}.gz" for name in SHA256} <= names
    assert "jaxclf-train = jaxclf.commands.train:main" in commands
    assert "jaxclf-eval = jaxclf.commands.eval:main" in commands
    assert "jaxclf-explain = jaxclf.commands.explain:main" in commands
    assert "jaxclf-benchmark = jaxclf.commands.benchmark:main" in commands
