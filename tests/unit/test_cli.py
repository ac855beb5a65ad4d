"""The command line: help, and mistakes answered in a few lines."""

import json

import pytest
from support.cli import look, train

from jaxclf.cli.app import parse_options
from jaxclf.cli.benchmark_variants import build_variants
from jaxclf.cli.train import print_result
from jaxclf.cli.train_options import get_initials
from jaxclf.errors import UserError


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["--optimizer.lr", "3"], "did you mean --optimizer.learning-rate?"),
        (["--optimizer.learning_rat", "3"], "did you mean --optimizer.learning-rate?"),
        (["--model.feature", "3"], "did you mean --model.features?"),
        (["--wordir", "x"], "did you mean --workdir?"),
        (["--epochs", "x"], "--epochs: invalid literal"),
        (["--model.dtype", "float8"], "'float32', 'bfloat16'"),
        (["--epochs", "0"], "epochs=0: expected at least 1"),
    ],
)
def test_a_wrong_flag_is_answered_in_a_few_lines(arguments, answer, capsys):
    assert train(["mnist_cnn", *arguments]) == 2
    printed = capsys.readouterr().err
    assert answer in printed
    assert len(printed.splitlines()) <= 5


COMPONENTS_CONFIG = """
from dataclasses import replace

from jaxclf.augment import Mixup
from jaxclf.config_io import read_config
from jaxclf.metrics import Accuracy, TopK


def get_config():
    return replace(read_config("mnist_best"), metrics=(Accuracy(), TopK(k=2)), mixup=Mixup())
"""


@pytest.fixture
def components(tmp_path):
    """A config with the augmentations Rotate and Shift, two metrics and Mixup."""
    path = tmp_path / "components.py"
    path.write_text(COMPONENTS_CONFIG)
    return path


def test_fields_of_components_in_tuples_are_options_by_their_place(components, capsys):
    arguments = ["--augment.0.degrees", 3, "--augment.1.pixels", 4, "--metrics.1.k", 5, "--mixup.alpha", 0.3]
    assert train([components, "--print-config", *arguments]) == 0
    config = json.loads(capsys.readouterr().out)
    assert [config["augment"][0]["degrees"], config["augment"][1]["pixels"]] == [3.0, 4]
    assert [config["metrics"][1]["k"], config["mixup"]["alpha"]] == [5, 0.3]


@pytest.mark.parametrize("flag", ["augment.2.pixels", "augment.0.pixels", "augment.degrees", "augment"])
def test_a_wrong_place_is_answered_with_the_flags_there_are(components, flag, capsys):
    answer = "the flags of augment are --augment.0.degrees, --augment.1.pixels"
    assert train([components, f"--{flag}", 3]) == 2
    assert f"unknown argument --{flag}; {answer}" in capsys.readouterr().err
    with pytest.raises(UserError, match=f"no such field; {answer}".replace("--", "")):
        build_variants([str(components)], [f"{flag}=3,4"], None, ())


def test_a_benchmark_sweeps_the_fields_of_augmentations(components):
    variants = build_variants([str(components)], ["augment.1.pixels=1,3"], None, ())
    assert {name: variant.config.augment[1].pixels for name, variant in variants.items()} == {
        "components,augment.1.pixels=1": 1,
        "components,augment.1.pixels=3": 3,
    }
    sampled = build_variants([str(components)], ["augment.1.pixels=linear:1:4"], 6, ())
    assert {variant.config.augment[1].pixels for variant in sampled.values()} <= {1, 2, 3, 4}


def test_fields_without_flags_are_said_to_be_set_in_the_config(capsys):
    assert train(["mnist_cnn", "--mixup.alpha", "0.3"]) == 2
    assert "unknown argument --mixup.alpha; it is set in the config file" in capsys.readouterr().err


def test_a_field_given_by_set_is_answered_with_its_option(capsys):
    """Case F20: benchmark has `--set`, train an option for each field."""
    assert train(["mnist_cnn", "--set", "epochs=1"]) == 2
    assert "unknown argument --set; each field has an option of its own, such as --epochs 1" in capsys.readouterr().err


def test_wrong_first_arguments(capsys):
    assert train(["--epochs", "3"]) == 2
    assert "expected a config" in capsys.readouterr().err
    assert train(["nowhere.py"]) == 2
    assert "one of cartoons_cnn" in capsys.readouterr().err
    with pytest.raises(UserError):
        train(["nowhere.py", "--debug"])


def test_print_config_is_json(capsys):
    assert train(["mnist_cnn", "--print-config", "--optimizer.learning-rate", "3e-4"]) == 0
    assert json.loads(capsys.readouterr().out)["optimizer"]["learning_rate"] == 3e-4


def test_a_config_without_a_dataset_has_no_options_of_one(tmp_path, capsys):
    path = tmp_path / "none.py"
    path.write_text(COMPONENTS_CONFIG.replace("metrics=", "dataset=None, metrics="))
    assert look([path, "--dataset.root", "pictures"]) == 2
    assert "--dataset.root pictures: the config has dataset=None, which has no fields" in capsys.readouterr().err
    assert look([path]) == 2
    assert "the config has no dataset; give it one, such as ImageFolder(" in capsys.readouterr().err


def test_losses_that_are_not_finite_are_printed(capsys):
    """summary.json has null for them."""
    values = {"accuracy": 0.1, "loss": None}
    result = {"train_full": values, "validation": values, "test": {**values, "mistakes": 9, "examples": 10}}
    print_result({**result, "steps": 3, "train_seconds": 1.0, "images_per_second": 30.0})
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [f"On {name} images: 10.00%, loss not finite" for name in ("training", "validation")]
    assert lines[2].endswith(", test loss not finite")


def test_initials():
    assert get_initials("optimizer.learning_rate") == "lr"


def test_the_fields_of_nested_components_are_options():
    options = parse_options(
        "train", ["mnist_linear", "--dataset.validation", "100", "--optimizer.learning-rate", "0.5"]
    )
    assert options.config.dataset.validation == 100
    options = parse_options("train", ["simpsons28", "--dataset.resizing.interpolation", "bicubic"])
    assert options.config.dataset.resizing.interpolation == "bicubic"
