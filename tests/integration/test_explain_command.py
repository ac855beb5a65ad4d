"""The command that explains: names of methods, their flags, which images, and what it says of mistakes."""

import numpy as np
import pytest
from support.cli import explain

from jaxclf import load, saliency
from jaxclf.cli.app import parse
from jaxclf.cli.explain import chosen_images, fitting_methods, method_names
from jaxclf.cli.explain_options import ExplainMethodOptions as ExplainOptions
from jaxclf.saliency.names import METHODS
from jaxclf.types import Split


def parsed(*arguments):
    return parse(ExplainOptions, ["run", *arguments], prog="explain.py")


def test_every_method_has_a_name_and_its_fields_are_flags():
    exported = {cls for cls in vars(saliency).values() if isinstance(cls, type) and issubclass(cls, saliency.Method)}
    assert set(METHODS.values()) == exported - {saliency.Method, saliency.AllClasses}
    assert {"gradient", "gradient-times-input", "grad-cam-plus-plus"} <= set(METHODS)
    options = parsed("--methods", "smooth-grad", "--smooth-grad.method.score", "margin", "--smooth-grad.samples", "3")
    assert options.fields.smooth_grad == saliency.SmoothGrad(saliency.Gradient(score="margin"), samples=3)


def test_of_all_methods_those_that_do_not_fit_are_left_out_and_said(linear_run, capsys):
    options = parsed("--methods", "all")
    fitting = fitting_methods(options, method_names(options), load(linear_run[0]))
    said = capsys.readouterr().err
    assert {"gradient", "occlusion"} <= set(fitting)
    assert {"grad-cam", "score-cam"}.isdisjoint(fitting)
    assert "grad-cam left out: no layer puts out [b, h, w, c]" in said
    assert set(METHODS) == set(fitting) | {line.split()[0] for line in said.splitlines()}
    few = parsed()
    assert set(fitting_methods(few, method_names(few), load(linear_run[0]))) == {
        "gradient", "integrated-gradients", "smooth-grad",
    }  # fmt: skip
    assert capsys.readouterr().err == ""


def test_images_that_come_class_by_class_are_chosen_from_all_classes():
    images, names = np.zeros((50, 2, 2, 1), np.uint8), ("a", "b")
    mixed, in_order = (Split(images, labels, names) for labels in (np.arange(50) % 2, np.arange(50) // 25))
    np.testing.assert_array_equal(chosen_images(mixed, 7), np.arange(7))
    few, more = chosen_images(in_order, 7), chosen_images(in_order, 20)
    assert set(in_order.labels[few]) == {0, 1}
    assert set(few) < set(more)
    for split in (mixed, in_order):
        np.testing.assert_array_equal(chosen_images(split, 0), np.arange(50))
        assert len(chosen_images(split, 99)) == 50


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["--methods", "integrated-gradient"], "did you mean integrated-gradients?"),
        (["--methods", "zzz"], "the methods are blur-integrated-gradients, "),
        (["--integrated-gradients.step", "3"], "did you mean --integrated-gradients.steps?"),
        (["--integrated-gradients.steps", "x"], "--integrated-gradients.steps: invalid literal"),
        (["--integrated-gradients.steps", "0"], "steps=0: expected at least 1"),
        (["--metods", "gradient"], "did you mean --methods?"),
        (["--rise.grid", "3"], "a field of rise is given"),
        (["--methods", "grad-cam", "--grad-cam.layer", "conv7"], "grad-cam: no layer 'conv7': the layers are flatten"),
        (["--methods", "grad-cam"], "grad-cam: no layer puts out [b, h, w, c]"),
        (["--limit", "-1"], "limit=-1: expected"),
        (["--split", "validation"], "no split 'validation'; it has train, test"),
    ],
)
def test_a_mistake_is_answered_in_a_few_lines(linear_run, arguments, answer, capsys):
    before = set(linear_run[0].iterdir())
    assert explain([str(linear_run[0]), *arguments]) == 2
    printed = capsys.readouterr().err
    assert answer in printed
    assert len(printed.splitlines()) <= 5
    assert set(linear_run[0].iterdir()) == before


def test_no_run_is_named(tmp_path, capsys):
    assert explain([str(tmp_path / "none")]) == 2
    assert "has no config.json" in capsys.readouterr().err


def test_ctrl_c_leaves_nothing_behind(start, run_directory):
    before = {path.name for path in run_directory.iterdir()}
    with start("-m", "jaxclf", "explain", run_directory, "--limit", 0, "--methods", "rise") as process:
        assert process.stderr.readline().startswith("images to explain: 10,000")
        process.send_signal(2)
        _, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (130, "interrupted\n")
    assert {path.name for path in run_directory.iterdir()} == before


def test_help_lists_the_fields_of_the_methods_without_tensorflow(command):
    done = command("-X", "importtime", "-m", "jaxclf", "explain", "--help", COLUMNS="200")
    assert done.returncode == 0
    for text in ("--integrated-gradients.steps INT", "(default: 50)", "--smooth-grad.method.score", "--all-classes"):
        assert text in done.stdout
    imported = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert imported & {"tensorflow", "matplotlib", "orbax", "tensorboardX", "skimage"} == set()
