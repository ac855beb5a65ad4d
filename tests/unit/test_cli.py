"""The command line: help, and mistakes answered in a few lines."""

import json

import pytest
from support.cli import train

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


def test_initials():
    assert get_initials("optimizer.learning_rate") == "lr"
