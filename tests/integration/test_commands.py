"""The real commands, in processes of their own, as a user runs them."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.colors import to_rgb
from PIL import Image
from support.cli import evaluate, lines

import jaxclf
from jaxclf.cli import huge_pages
from jaxclf.cli.models import FAMILIES
from jaxclf.errors import UserError
from jaxclf.figures import RIGHT, WRONG

ROOT = Path(jaxclf.__file__).parent.parent
MINE = """
from dataclasses import dataclass

import flax.linen as nn
import numpy as np

from jaxclf.config import Config
from jaxclf.optimizers import Sgd
from jaxclf.types import Split, Splits


@dataclass(frozen=True)
class Stripes:
    images: int = 64

    def load(self):
        random = np.random.default_rng(0)
        labels = np.arange(self.images, dtype=np.int32) % 2
        images = random.integers(0, 100, (self.images, 8, 8, 1), np.uint8)
        images[labels == 1, ::2] += 150
        split = Split(images, labels, ("plain", "striped"))
        return Splits(split, None, split)


class Linear(nn.Module):
    classes: int

    @nn.compact
    def __call__(self, images, train=False):
        return nn.Dense(self.classes)(images.reshape(images.shape[0], -1) / 255.0)


def get_config():
    return Config(Stripes(), Linear(classes=2), Sgd(learning_rate=0.5), epochs=4, batch_size=8)
"""
TRAIN_OWN = ("-m", "jaxclf", "train", "mine.py", "--import", "my_module", "--compilation-cache", "compiled")


def test_training_prints_the_table_the_curves_and_the_result(linear_run):
    _, done = linear_run
    assert re.search(r"total parameters .* 7,850", done.stdout)
    step = r"^step 937/937  epoch 1\.00  loss .*accuracy .*%.* images/s  data wait \d+\.\d\d s$"
    assert re.search(step, done.stdout, re.M)
    assert re.search(r"^epoch 1/1  train_full .*accuracy 9\d\.\d\d%$", done.stdout, re.M)
    assert "no validation split: curves show test, and no best checkpoint is chosen" in done.stdout
    assert re.search(
        r"^Overall accuracy: 9\d\.\d\d% \(\d+ mistakes in 10,000; 95 % interval 9\d\.\d\d% to 9\d\.\d\d%\), "
        r"test loss 0\.\d{4}$",
        done.stdout,
        re.M,
    )
    assert done.stderr == ""


def test_the_run_directory_is_complete(linear_run):
    workdir, _ = linear_run
    assert {path.name for path in workdir.iterdir()} >= {
        "config.json", "environment.json", "metrics.jsonl", "parameters.csv", "summary.json", "checkpoints",
        "tensorboard",
    }  # fmt: skip
    summary = json.loads((workdir / "summary.json").read_text())
    assert (summary["parameters"], summary["steps"], summary["batch_size"], summary["best"]) == (
        7_850,
        937,
        64,
        None,
    )
    assert summary["images_per_second"] == pytest.approx(937 * 64 / summary["train_seconds"])
    assert summary["wall_seconds"] > summary["train_seconds"] + summary["compile_seconds"]
    assert list((workdir / "tensorboard" / "train").iterdir())
    environment = json.loads((workdir / "environment.json").read_text())
    assert len(environment["devices"]) == 1


def test_a_finished_run_prints_its_result_and_stops(command, linear_run):
    workdir, first = linear_run
    again = command("train.py", "configs/mnist_linear.py", "--epochs", 1, "--workdir", workdir)
    assert again.returncode == 0
    result = next(line for line in first.stdout.splitlines() if line.startswith("Overall"))
    assert result in again.stdout
    assert "step " not in again.stdout


def test_a_changed_config_is_refused_with_the_difference(command, linear_run):
    workdir, _ = linear_run
    found = lines(command("train.py", "mnist_linear", "--workdir", workdir, "--seed", 3, "--epochs", 1))
    assert found[1:] == ["  seed: 0 -> 3"]


def test_pmap_on_four_devices_gives_the_result_of_one(command, linear_run, tmp_path):
    flags = "--xla_force_host_platform_device_count=4"
    arguments = ("mnist_linear", "--epochs", 1, "--parallel", "pmap", "--workdir", tmp_path / "run")
    done = command("train.py", *arguments, XLA_FLAGS=flags)
    assert (done.returncode, done.stderr) == (0, "")
    many, one = (json.loads((path / "summary.json").read_text()) for path in (tmp_path / "run", linear_run[0]))
    assert many["test"]["loss"] == pytest.approx(one["test"]["loss"], abs=1e-5)
    assert len(json.loads((tmp_path / "run" / "environment.json").read_text())["devices"]) == 4


@pytest.fixture(scope="module")
def evaluation(command, linear_run, tmp_path_factory):
    workdir = shutil.copytree(linear_run[0], tmp_path_factory.mktemp("evaluated") / "linear")
    done = command("eval.py", workdir)
    assert (done.returncode, done.stderr) == (0, "")
    return workdir, done


def test_evaluation_agrees_with_training_and_with_its_own_predictions(evaluation):
    workdir, done = evaluation
    report = json.loads((workdir / "evaluation.json").read_text())
    summary = json.loads((workdir / "summary.json").read_text())
    assert report["accuracy"] == summary["test"]["accuracy"]
    assert report["loss"] == pytest.approx(summary["test"]["loss"], rel=1e-6)
    with (workdir / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    right = [row["label"] == row["prediction"] for row in rows]
    assert len(rows) == 10_000
    assert np.mean(right) == report["accuracy"]
    matrix = np.array(report["confusion_matrix"])
    assert matrix.sum() == 10_000
    assert np.trace(matrix) == sum(right)
    assert report["per_class_accuracy"]["3"] == matrix[3, 3] / matrix[3].sum()
    assert report["top_5_accuracy"] > report["accuracy"]
    assert f"({10_000 - sum(right):,} mistakes in 10,000)" in done.stdout


def test_large_confusion_matrices_are_not_written(colour_run, tmp_path, monkeypatch):
    for largest, matrix in ((2, [[8, 0], [0, 8]]), (1, None)):
        monkeypatch.setattr("jaxclf.cli.eval.MAX_WRITTEN", largest)
        assert evaluate([colour_run, "--output", tmp_path]) == 0
        assert json.loads((tmp_path / "evaluation.json").read_text())["confusion_matrix"] == matrix


def test_evaluation_draws_the_figures_of_the_studies(evaluation):
    workdir, _ = evaluation
    training_images = "#e69f00"
    red, blue = colormaps["RdBu_r"](1.0), colormaps["RdBu_r"](0.0)  # where the colors of weights saturate
    expected = {
        "predictions": [RIGHT],
        "mistakes": [WRONG],
        "first_mistake": [WRONG],
        "seen_and_unseen": [RIGHT],
        "curves": [training_images, RIGHT],  # which is the color of test as well
        "curve_and_mistake": [training_images, WRONG],
        "confusion": [colormaps["RdBu"](0.125)],  # the most frequent confusion
        "weights": [red, blue],
    }
    for name, colors in expected.items():
        with Image.open(workdir / f"{name}.png") as picture:
            found = np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0).astype(int)
        for color in colors:
            distances = np.abs(found - np.round(255 * np.array(to_rgb(color)))).max(axis=1)
            assert distances.min() <= 3, (name, color)
        if name in ("mistakes", "first_mistake"):
            assert np.round(255 * np.array(to_rgb(RIGHT))).tolist() not in found.tolist()
    assert not (workdir / "flow.png").exists()  # of a network without convolutions


def test_another_batch_size_and_split(command, evaluation):
    workdir, _ = evaluation
    before = json.loads((workdir / "evaluation.json").read_text())
    assert command("eval.py", workdir, "--batch-size", 77).returncode == 0
    after = json.loads((workdir / "evaluation.json").read_text())
    assert after["loss"] == pytest.approx(before["loss"], rel=1e-6)
    assert {**after, "loss": 0} == {**before, "loss": 0}
    assert "it has train, test" in lines(command("eval.py", workdir, "--split", "validation"))[0]


def test_a_loaded_run_predicts(linear_run, mnist):
    workdir, _ = linear_run
    run = jaxclf.load(workdir)
    probabilities = run.predict(mnist.test.images[:700])
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    accuracy = np.mean(np.argmax(probabilities, axis=1) == mnist.test.labels[:700])
    assert accuracy > 0.85  # 0.910 ± 0.003 over seeds (n = 6)
    np.testing.assert_allclose(run.predict(mnist.test.images[:700] / np.float32(255)), probabilities, atol=1e-5)
    assert run.class_names == tuple("0123456789")
    assert (len(run.splits.train), run.splits.validation, run.step) == (60_000, None, 937)
    assert run.model.apply(run.variables, mnist.test.images[:2]).shape == (2, 10)
    assert run.predict(mnist.test.images[:0]).shape == (0, 10)
    with pytest.raises(UserError, match=r"\[2, 9, 9, 1\]: expected \[b, 28, 28, 1\]"):
        run.predict(np.zeros((2, 9, 9, 1), np.uint8))


def test_what_is_not_there_is_named(command, linear_run, tmp_path):
    workdir, _ = linear_run
    assert "has no config.json" in lines(command("eval.py", tmp_path))[0]
    assert "steps 937" in lines(command("eval.py", workdir, "--checkpoint", 5))[0]
    (tmp_path / "config.json").write_text((workdir / "config.json").read_text())
    assert "train first" in lines(command("eval.py", tmp_path))[0]
    (tmp_path / "config.json").write_text("{")
    assert "config.json is not readable as JSON" in lines(command("eval.py", tmp_path))[0]


@pytest.fixture(scope="module")
def own(command, tmp_path_factory):
    """A directory with a module of one's own, what it trained, and what that printed."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "my_module.py").write_text(MINE)
    (folder / "mine.py").write_text("from my_module import get_config")
    return folder, command(*TRAIN_OWN, "--model.classes", 2, cwd=folder)


def test_a_model_and_a_dataset_of_ones_own(own, command):
    folder, done = own
    assert (done.returncode, done.stderr) == (0, "")
    assert "Overall accuracy: 100.00% (0 mistakes in 64; 95 % interval " in done.stdout
    script = ("-m", "jaxclf", "train", "mine.py")
    assert lines(command(*script, cwd=folder))[0].endswith("add --import my_module")
    assert "no_such" in lines(command(*script, "--import", "no_such", cwd=folder))[0]
    arguments = ("-m", "jaxclf", "eval", "runs/mine")
    assert "--import my_module" in lines(command(*arguments, cwd=folder))[0]
    done = command(*arguments, "--import", "my_module", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert not (folder / "runs/mine/mistakes.png").exists()


def test_model_and_data_must_fit(command, tmp_path):
    done = command("train.py", "mnist_linear", "--model.classes", 7, "--workdir", tmp_path / "x")
    assert lines(done) == ["error: the model has 7 logits and the dataset 10 classes; add --model.classes 10"]


def test_a_refused_start_leaves_no_run_behind(command, tmp_path):
    workdir = tmp_path / "run"
    wrong = ("train.py", "mnist_linear", "--workdir", workdir, "--epochs", 1)
    lines(command(*wrong, "--model.classes", 7))
    assert len(lines(command(*wrong, "--batch-size", 70_000))) == 1
    assert not workdir.exists()
    workdir.write_text("a file")
    assert "is a file" in lines(command(*wrong))[0]
    assert "Not a directory" in lines(command(*wrong[:3], workdir / "sub"))[0]


def test_a_run_directory_runs_nothing(command, run_directory):
    for name in ("tensorstore", "matplotlib", "tensorflow", "sitecustomize"):
        (run_directory / f"{name}.py").write_text("raise SystemExit('code of the run directory was executed')")
    script = "import sys; sys.path.pop(0); from jaxclf.cli.app import main; sys.exit(main(['eval', '.']))"
    done = command("-c", script, cwd=run_directory)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_closed_pipe_ends_with_141(start, tmp_path):
    with start("-u", "train.py", "mnist_linear", "--workdir", tmp_path / "run") as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=120) == 141


def test_looking_at_the_data(command, tmp_path):
    done = command("-m", "jaxclf", "data", "mnist_cnn", "--output", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "train: images [55000, 28, 28, 1], labels [55000]" in done.stdout
    assert "validation: images [5000, 28, 28, 1]" in done.stdout
    assert ["1", "6,179", "563", "1,135", "11.2%"] in [line.split() for line in done.stdout.splitlines()]
    assert "pixels: uint8, from 0 to 255, 256 distinct values" in done.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"classes.png", "first.png", "labelled.png", "one_hot.png"}


def test_published_networks_are_listed_with_their_parameters(command):
    printed = command("-m", "jaxclf", "models").stdout
    found = {line.rsplit(")", 1)[0].strip() + ")": line.rsplit(")", 1)[1].split() for line in printed.splitlines()[1:]}
    networks = {
        f"{family.__name__}.named({json.dumps(name)}, classes=1000)" for family in FAMILIES for name in family.names
    }
    assert set(found) == networks
    assert found["ResNet.named(50, classes=1000)"][0] == "25,557,032"
    # The published 4.1 and 4.6 billion multiplications and additions, counted as two.
    assert float(found["ResNet.named(50, classes=1000)"][1]) == pytest.approx(8.2, rel=0.05)
    assert float(found['Vit.named("S/16", classes=1000)'][1]) == pytest.approx(9.2, rel=0.05)
    assert found["EfficientNetLite.named(4, classes=1000)"][0] == "13,006,568"


def test_a_dry_run_writes_nothing(command, tmp_path):
    done = command("-m", "jaxclf", "train", "mnist_mlp", "--dry-run", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    for text in (
        "train: [55000, 28, 28, 1]",
        "859 an epoch, 60,130 in all",
        "operations an image",
        "optimizer group all: 335,114 parameters, rate x 1, weight decay 0",
        "one step: loss 2.",
    ):
        assert text in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_is_answered_with_130(start, tmp_path):
    with start("train.py", "mnist_mlp", "--workdir", tmp_path / "run") as process:
        for line in process.stdout:
            if line.startswith("step"):
                break
        process.send_signal(2)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    first, second = errors.splitlines()
    assert first == "SIGINT: saving a checkpoint, then exiting; Ctrl-C again to force quit"
    assert re.fullmatch(r"stopped at step [\d,]+; the same command resumes from there", second)


def test_compiled_programs_are_kept_and_taken_again(own, command):
    folder, _ = own
    kept = set((folder / "compiled").glob("*-cache"))
    assert kept
    assert command(*TRAIN_OWN, "--workdir", "again", cwd=folder).returncode == 0
    assert set((folder / "compiled").glob("*-cache")) == kept


def test_profile_is_refused_where_the_run_has_no_such_steps(command, tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    arguments = ("mine.py", "--import", "mine", "--profile", "30:33")
    answer = lines(command("-m", "jaxclf", "train", *arguments, cwd=tmp_path))
    assert answer == ["error: --profile 30:33: expected START < STOP <= 32, the run's steps"]
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("script", ["explain --methods gradient --limit 2", "eval"])
def test_using_a_run_needs_no_tensorflow(command, run_directory, script):
    name, *options = script.split()
    code = (
        "import sys; from jaxclf.cli.app import main; "
        f"code = main(['{name}', *sys.argv[1:]]); print(code, 'tensorflow' in sys.modules)"
    )
    done = command("-c", code, run_directory, *options)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "0 False"), done


def test_diverging_training_ends_with_3(command, tmp_path):
    done = command(
        "train.py",
        "mnist_mlp",
        "--optimizer.learning-rate",
        "1e30",
        "--log-every",
        20,
        "--workdir",
        tmp_path / "x",
    )
    assert done.returncode == 3
    assert "no longer finite at step 50" in done.stderr  # an interval ends with its execution, of 50 steps here


def test_a_command_of_its_own_process_has_huge_pages(command, tmp_path):
    (tmp_path / "shown.py").write_text("import os\nprint(os.environ.get('GLIBC_TUNABLES'))\nraise SystemExit(7)\n")
    for words in (("train.py",), ("-m", "jaxclf", "train")):
        for given, expected in (("", huge_pages.SETTINGS), ("glibc.malloc.hugetlb=0",) * 2):
            done = command(*words, tmp_path / "shown.py", fresh=True, GLIBC_TUNABLES=given)
            assert done.returncode == 7
            assert done.stdout.strip() == (expected if huge_pages._is_useful() else given)
