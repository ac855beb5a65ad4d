"""The command `jaxclf explain`: names and options of methods, selection of images, user errors."""

import shutil

import numpy as np
import pytest
from support.cli import explain

from jaxclf import load, saliency
from jaxclf.cli.app import parse
from jaxclf.cli.explain import DEFAULT_METHODS, select_images
from jaxclf.cli.explain_options import ExplainMethodOptions as ExplainOptions
from jaxclf.cli.explain_options import leave_out_unsupported, select_methods
from jaxclf.saliency.names import METHODS
from jaxclf.types import Split


def parsed(*arguments):
    return parse(ExplainOptions, ["run", *arguments], prog="jaxclf explain")


def test_every_method_has_a_name_and_options_for_its_fields():
    exported = {cls for cls in vars(saliency).values() if isinstance(cls, type) and issubclass(cls, saliency.Method)}
    assert set(METHODS.values()) == exported - {saliency.Method, saliency.AllClasses}
    assert {"gradient", "gradient-times-input", "grad-cam-plus-plus"} <= set(METHODS)
    options = parsed("--methods", "smooth-grad", "--smooth-grad.method.score", "margin", "--smooth-grad.samples", "3")
    assert options.fields.smooth_grad == saliency.SmoothGrad(saliency.Gradient(score="margin"), samples=3)


def test_unsupported_methods_are_left_out_with_a_message(linear_run, capsys):
    options = parsed("--methods", "all")
    run = load(linear_run[0])
    fitting = leave_out_unsupported(select_methods(options.methods, options.fields), run, options.methods)
    errors = capsys.readouterr().err
    assert {"gradient", "occlusion"} <= set(fitting)
    assert {"grad-cam", "score-cam"}.isdisjoint(fitting)
    assert "grad-cam left out: no layer has an output [b, h, w, c]" in errors
    assert set(METHODS) == set(fitting) | {line.split()[0] for line in errors.splitlines()}
    few = leave_out_unsupported(select_methods(DEFAULT_METHODS, parsed().fields), run, ())
    assert set(few) == {"gradient", "integrated-gradients", "smooth-grad"}
    assert capsys.readouterr().err == ""


def test_images_of_a_split_sorted_by_class_are_sampled_from_all_classes():
    images, names = np.zeros((50, 2, 2, 1), np.uint8), ("a", "b")
    mixed, in_order = (Split(images, labels, names) for labels in (np.arange(50) % 2, np.arange(50) // 25))
    np.testing.assert_array_equal(select_images(mixed, 7), np.arange(7))
    few, more = select_images(in_order, 7), select_images(in_order, 20)
    assert set(in_order.labels[few]) == {0, 1}
    assert set(few) < set(more)
    for split in (mixed, in_order):
        np.testing.assert_array_equal(select_images(split, 0), np.arange(50))
        assert len(select_images(split, 99)) == 50


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "integrated-gradient"], "did you mean integrated-gradients?"),
        (["--methods", "zzz"], "the methods are attention-rollout, "),
        (["--integrated-gradients.step", "3"], "did you mean --integrated-gradients.steps?"),
        (["--integrated-gradients.steps", "x"], "--integrated-gradients.steps: invalid literal"),
        (["--integrated-gradients.steps", "0"], "steps=0: expected at least 1"),
        (["--metods", "gradient"], "did you mean --methods?"),
        (["--rise.grid", "3"], "a field of rise is set, but the method is not selected"),
        (
            ["--methods", "grad-cam", "--grad-cam.layer", "conv7"],
            "grad-cam: no layer 'conv7': the model has no layer that is suitable",
        ),
        (
            ["--methods", "conductance", "--conductance.layer", "logits"],
            "conductance: values of shape [1, 10] have no height and width",
        ),
        (["--methods", "grad-cam"], "grad-cam: no layer has an output [b, h, w, c]"),
        (["--limit", "-1"], "limit=-1: expected"),
        (["--split", "validation"], "no split 'validation'; it has train, test"),
    ],
)
def test_a_user_error_is_a_few_lines(linear_run, arguments, message, capsys):
    before = set(linear_run[0].iterdir())
    assert explain([str(linear_run[0]), *arguments]) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert len(printed.splitlines()) <= 5
    assert set(linear_run[0].iterdir()) == before


def test_image_files_are_explained_with_images_elsewhere(colour_run, tmp_path, capsys):
    run = shutil.copytree(colour_run, tmp_path / "run")
    pictures = shutil.copytree(colour_run.parent / "pictures", tmp_path / "pictures")
    command = [run, pictures / "red/0.png", "--methods", "expected-gradients", "--expected-gradients.samples", "2"]
    assert explain([*command, "--dataset.root", pictures]) == 0
    assert (run / "images/0.png").is_file()
    assert explain([*command, "--dataset.root", tmp_path / "none"]) == 2
    assert f"no folder at {tmp_path / 'none'}" in capsys.readouterr().err


def test_a_missing_run_is_refused(tmp_path, capsys):
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
    plain = command("-m", "jaxclf", "explain", "--help", COLUMNS="200")
    assert (plain.returncode, "--methods lrp --help" in plain.stdout) == (0, True)
    words = ("-m", "jaxclf", "explain", "--methods", "integrated-gradients", "--help")
    done = command("-X", "importtime", *words, COLUMNS="200")
    assert done.returncode == 0
    for text in ("--integrated-gradients.steps INT", "(default: 50)", "--smooth-grad.method.score", "--all-classes"):
        assert text in done.stdout
    imported = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert imported & {"tensorflow", "matplotlib", "orbax", "tensorboardX", "skimage"} == set()
