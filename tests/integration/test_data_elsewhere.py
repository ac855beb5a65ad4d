"""Runs whose images are renamed, moved or in folders of splits (cases F3, F4 and F15)."""

import json
import shutil

import pytest
from support.cli import evaluate, explain, predict, report, run_command, train
from support.pictures import write

from jaxclf import load
from jaxclf.datasets import ImageFolder, load_splits
from jaxclf.reporting.model_card import collect_results

CONFIG = """
from jaxclf.config import Config
from jaxclf.datasets import ImageFolder
from jaxclf.models import Mlp
from jaxclf.optimizers import Adam


def get_config():
    return Config(
        dataset=ImageFolder("pictures", (4, 4)),
        model=Mlp(features=(), classes=2),
        optimizer=Adam(learning_rate=0.1),
        epochs=1,
        batch_size=4,
    )
"""


@pytest.fixture(scope="module")
def trained_place(tmp_path_factory):
    """A directory with a config, images in folders of splits, and a run that was started in it."""
    place = tmp_path_factory.mktemp("trained")
    (place / "mine.py").write_text(CONFIG)
    write(place / "pictures/train", {"dark": 8, "light": 8})
    write(place / "pictures/val", {"dark": 4, "light": 4}, 100)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert train(["mine.py"]) == 0
    return place


@pytest.fixture
def place(trained_place, tmp_path, monkeypatch):
    """A copy of that directory, which is the working directory."""
    place = shutil.copytree(trained_place, tmp_path / "place")
    monkeypatch.chdir(place)
    return place


def read_accuracy(path):
    return json.loads((path / "evaluation.json").read_text())["accuracy"]


def test_the_data_is_described_before_training(place, capsys):
    assert run_command("data", ["mine.py", "--dataset.root", "pictures", "--output", "drawn"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    for row in (["2", "classes", "train", "test", "of", "train"], ["dark", "8", "4", "50.0%"]):
        assert row in lines


def test_a_table_of_splits_is_found_where_the_run_was_started(place, tmp_path, monkeypatch):
    files = sorted((place / "pictures").glob("*/*/*.*"))
    lines = [f"{file.relative_to(place / 'pictures')},{file.parent.name},train" for file in files]
    (place / "labels.csv").write_text("\n".join(["path,label,split", *lines]))
    monkeypatch.chdir(tmp_path)
    folder = ImageFolder("pictures", (4, 4), splits="labels.csv")
    assert len(load_splits(folder, started_in=str(place)).train) == len(files) == 24


def test_a_run_is_evaluated_from_another_directory(place, trained_place, tmp_path, monkeypatch, capsys):
    """The relative root is looked for where the run was started; what is written goes elsewhere."""
    shutil.rmtree(place / "pictures")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    before = sorted((place / "runs/mine").rglob("*"))
    assert evaluate([place / "runs/mine", "--output", "out"]) == 0
    assert explain([place / "runs/mine", "--output", "out", "--methods", "gradient", "--limit", 2]) == 0
    assert sorted((place / "runs/mine").rglob("*")) == before
    for name in ("evaluation.json", "predictions.csv", "report.html", "explanations.npz", "explanations/gradient.png"):
        assert (tmp_path / "other/out" / name).is_file()
    first = (tmp_path / "other/out/report.html").read_bytes()
    for output in ("out", "page/mine.html"):
        assert report([place / "runs/mine", "--output", output]) == 0
    assert (
        (tmp_path / "other/out/report.html").read_bytes() == (tmp_path / "other/page/mine.html").read_bytes() == first
    )
    assert report([place / "runs/mine", place / "runs/mine", "--output", "out"]) == 0
    assert (tmp_path / "other/out/comparison.html").is_file()
    assert sorted((place / "runs/mine").rglob("*")) == before
    assert str(place / "runs") not in capsys.readouterr().out


def test_a_report_shows_the_split_that_was_evaluated(place, tmp_path, capsys):
    moved = (place / "pictures").rename(tmp_path / "moved")
    root = ("--dataset.root", moved)
    assert evaluate(["runs/mine", *root, "--split", "train", "--output", "out"]) == 0
    (place / "out/report.html").unlink()
    assert report(["runs/mine", *root, "--output", "out"]) == 0
    assert "evaluated on the 16 train images" in (place / "out/report.html").read_text()
    assert report(["runs/mine", *root]) == 0
    assert "evaluated on the 8 test images" in (place / "runs/mine/report.html").read_text()
    evaluation = json.loads((place / "out/evaluation.json").read_text())
    (place / "out/evaluation.json").write_text(json.dumps(evaluation | {"step": 3}))
    capsys.readouterr()
    assert report(["runs/mine", *root, "--output", "out"]) == 2
    assert "evaluation.json is of step 3, and runs/mine has no such checkpoint" in capsys.readouterr().err


def test_a_comparison_reads_no_images(place, capsys):
    assert report(["runs/mine", "runs/mine", "--dataset.root", "pictures"]) == 2
    assert capsys.readouterr().err.startswith(
        "error: --dataset.root pictures: a comparison of several runs reads no images"
    )
    assert report([]) == 2
    assert "no run is named" in capsys.readouterr().err


def test_images_elsewhere_are_named_on_the_command_line(place, tmp_path, capsys):
    assert evaluate(["runs/mine"]) == 0
    expected = read_accuracy(place / "runs/mine")
    moved = (place / "pictures").rename(tmp_path / "moved")
    assert evaluate(["runs/mine", "--dataset.root", moved, "--output", "out"]) == 0
    assert read_accuracy(place / "out") == expected
    capsys.readouterr()
    assert evaluate(["runs/mine", "--dataset.roo", moved]) == 2
    assert "unknown argument --dataset.roo; did you mean --dataset.root?" in capsys.readouterr().err


def test_a_model_card_has_no_results_of_other_images(place, tmp_path):
    """Neither those of an evaluation of images elsewhere, nor with test-time augmentation."""
    expected = collect_results(load("runs/mine"), "raw")
    elsewhere = shutil.copytree(place / "pictures", tmp_path / "elsewhere")
    for changes in (("--dataset.root", elsewhere), ("--tta", "flip")):
        assert evaluate(["runs/mine", *changes]) == 0
        assert collect_results(load("runs/mine"), "raw") == expected
    assert evaluate(["runs/mine"]) == 0
    assert collect_results(load("runs/mine"), "raw")["test"].keys() > expected["test"].keys()


def test_images_that_were_trained_on_are_not_tested(place, capsys):
    for path in list((place / "pictures/train/dark").iterdir()):
        path.rename(place / f"pictures/val/dark/new_{path.name}")
    (place / "pictures/val/light/000.png").rename(place / "pictures/train/dark/000.png")
    assert evaluate(["runs/mine"]) == 2
    assert "8 images the run was trained on would be held out:" in capsys.readouterr().err
    assert train(["mine.py", "--epochs", 2, "--resume", "force"]) == 2
    assert "the data is not what this run began with" in capsys.readouterr().err


def test_renamed_images_change_nothing(place, capsys):
    assert evaluate(["runs/mine"]) == 0
    predictions = [line.split(",")[:4] for line in (place / "runs/mine/predictions.csv").read_text().splitlines()]
    for path in list((place / "pictures").rglob("*.png")):
        path.rename(path.with_name(f"{255 - int(path.stem)}.png"))
    capsys.readouterr()
    assert evaluate(["runs/mine"]) == 0
    assert "since training" not in capsys.readouterr().out
    again = [line.split(",")[:4] for line in (place / "runs/mine/predictions.csv").read_text().splitlines()]
    assert again == predictions
    assert train(["mine.py", "--epochs", 2, "--resume", "force"]) == 0


def test_new_images_are_counted(place, capsys):
    write(place / "pictures/val", {"dark/more": 2}, 200)
    (place / "pictures/val/light/000.png").unlink()
    assert evaluate(["runs/mine"]) == 0
    printed = capsys.readouterr().out
    assert "2 files are new, 1 missing and 0 changed since training" in printed
    assert "test: 9 images" in printed


def test_missing_training_images_are_an_error_before_the_first_row(place, capsys):
    picture = (place / "pictures/val/dark/000.png").rename(place / "one.png")
    shutil.rmtree(place / "pictures")
    (place / "runs/mine/environment.json").unlink()
    assert predict(["runs/mine", picture, "--explain", "expected-gradients"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "no folder at" in printed.err
    assert predict(["runs/mine", picture, "--explain", "gradient", "--output", place / "out"]) == 0
