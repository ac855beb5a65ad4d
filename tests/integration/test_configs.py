"""Every config trains, and the documented networks reach what their documents say."""

import re
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from jaxclf.config_io import read_config
from jaxclf.datasets.mnist import SHA256
from jaxclf.random import make_key
from jaxclf.training.devices import Devices
from jaxclf.training.trainer import Trainer

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").glob("*.py"))


@pytest.mark.parametrize(
    "path",
    # Those of the Simpsons have the network of the cartoons.
    [pytest.param(path, id=path.stem) for path in CONFIGS if "simpsons" not in path.stem],
)
def test_each_config_learns_in_a_few_steps(path, digits):
    """The loss of the last of eight epochs is below that of the untrained network, dropout and mixup included."""
    config = replace(read_config(str(path)), epochs=8, log_every=2, eval_batch_size=53)
    train, validation = digits.train, digits.validation
    untrained = config.model.init(make_key(config.seed, "init"), train.images[:1])
    losses = config.loss(config.model.apply(untrained, train.images), train.labels)

    run = Trainer(config, digits, Devices.all())
    run.fit()

    whole, rest = divmod(len(train), config.batch_size)
    assert run.progress.steps_done == 8 * (whole + (config.remainder == "pad" and rest > 0))
    assert run.progress.latest["train"]["loss"] < losses.mean()
    correct = run.progress.latest["validation"]["accuracy"] * len(validation)
    assert correct == pytest.approx(round(correct))  # of all images, each counted once


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_each_config_states_its_command_and_its_claim(path):
    docstring = path.read_text().split('"""')[1]
    assert f"python train.py configs/{path.name}" in docstring
    if "needs the download" in docstring:
        return
    assert re.search(r"^\d\d\.\d\d( ± \d\.\d\d)? % test accuracy.*n = \d", docstring, re.M), "the measured accuracy"
    assert "core" in docstring, "the machine"


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
    assert "jaxclf = jaxclf.cli.app:main" in commands
