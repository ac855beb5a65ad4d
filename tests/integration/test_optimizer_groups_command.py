"""Groups of parameters by the command: what a dry run prints, what a run keeps, and what is refused."""

import csv

import pytest
from support.cli import train

from jaxclf.augment import CenterCrop
from jaxclf.config import Config
from jaxclf.datasets import Arrays
from jaxclf.models import Mlp
from jaxclf.optimizers import AdamW
from jaxclf.training.trainer import Trainer

NETWORK = """
import flax.linen as nn


class Undeclared(nn.Module):
    @nn.compact
    def __call__(self, images, train=False):
        return nn.Dense(2, name="logits")(images.reshape(len(images), -1) / 255.0)
"""
GROUPS = ["--optimizer.freeze", "conv1/kernel", "--optimizer.layer-decay", "0.5", "--optimizer.head-rate", "10"]


@pytest.fixture
def config(colour_run, tmp_path):
    """The config of the red and blue pictures with AdamW; its network is `Cnn`, or another one of this file."""

    def write(model=None):
        text = (colour_run.parent / "colour.py").read_text().replace("Adam", "AdamW")
        text = text if model is None else NETWORK + text.replace("Cnn(features=(3,), dense=(), classes=2)", model)
        path = tmp_path / f"{tmp_path.name}.py"  # a module of this name is imported
        path.write_text(text)
        return path

    return write


def test_a_dry_run_prints_a_line_for_each_group(config, capsys):
    assert train([config(), "--dry-run", *GROUPS]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("optimizer group")]
    assert lines == [
        "optimizer group layer_0_no_decay: 3 parameters, rate x 0.5, weight decay 0",
        "optimizer group frozen: 81 parameters, not trained",
        "optimizer group head_no_decay: 2 parameters, rate x 10, weight decay 0",
        "optimizer group head_decay: 216 parameters, rate x 10, weight decay 0.01",
    ]


def test_a_run_keeps_what_each_parameter_gets(config, tmp_path):
    assert train([config(), "--workdir", tmp_path / "run", *GROUPS]) == 0
    with (tmp_path / "run/parameters.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["path"], row["shape"], row["group"]) for row in rows] == [
        ("conv1/bias", "3", "layer_0_no_decay"),
        ("conv1/kernel", "3x3x3x3", "frozen"),
        ("logits/bias", "2", "head_no_decay"),
        ("logits/kernel", "108x2", "head_decay"),
    ]


@pytest.mark.parametrize(
    ("model", "flags", "message"),
    [
        (None, ["--optimizer.freeze", "conv1", "stem*"], "freeze='stem*' matches no parameter"),
        (None, ["--optimizer.freeze", "*"], "leaves no parameter to train"),
        (
            "Undeclared()",
            ["--optimizer.layer-decay", "0.75"],
            "Undeclared declares none; add the property layer_groups",
        ),
        ("Undeclared()", ["--optimizer.head-rate", "10"], "Undeclared declares none; add the property layer_groups"),
    ],
)
@pytest.mark.parametrize("dry", [True, False], ids=["dry run", "run"])
def test_groups_that_do_not_fit_are_refused_before_training(model, flags, message, dry, config, tmp_path, capsys):
    path = config(model)
    imports = [] if model is None else ["--import", path.stem]
    assert train([path, *flags, *imports, *(["--dry-run"] if dry else ["--workdir", tmp_path / "run"])]) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert len(errors.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_parameters_are_those_for_images_after_the_evaluation_transform(digits):
    config = Config(
        Arrays(digits.train.images, digits.train.labels), Mlp(features=(), classes=10), AdamW(learning_rate=0.001),
        epochs=1, batch_size=48, evaluation_transform=CenterCrop(20),
    )  # fmt: skip
    assert Trainer(config, config.dataset.load()).assignments["logits/kernel"].shape == (20 * 20, 10)
