"""The real commands on pictures in folders."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image
from support.cli import lines, train


@pytest.mark.parametrize("config", ["simpsons_cnn", "simpsons_overfit"])
def test_without_the_download_page_layout_and_place_are_named(config, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert train([config]) == 2
    answer = capsys.readouterr().err
    for words in ("kaggle.com/datasets/alexattia", "<root>/<class>/<image>", str(tmp_path / "data/simpsons_dataset")):
        assert words in answer
    assert len(answer.splitlines()) <= 5


FOLDER_CONFIG = """
from jaxclf.config import Config
from jaxclf.datasets import ImageFolder
from jaxclf.models import Cnn
from jaxclf.optimizers import Adam


def get_config():
    return Config(
        dataset=ImageFolder(
            "pictures", (16, 16), min_images=3, train_fraction=0.6, test_fraction=0.2, unreadable="skip"
        ),
        model=Cnn(features=(4,), dense=(), classes=2),
        optimizer=Adam(learning_rate=0.01),
        epochs=2,
        batch_size=8,
        evaluate_train=True,
    )
"""


@pytest.fixture(scope="module")
def folder_run(command, tmp_path_factory, mnist):
    """A run on pictures in folders, 22 files of which are no pictures, and what it printed."""
    place = tmp_path_factory.mktemp("folder")
    for name, label, count in (("zero", 0, 40), ("one", 1, 40), ("rare", 2, 2)):
        (place / "pictures" / name).mkdir(parents=True)
        for i in np.flatnonzero(mnist.train.labels == label)[:count]:
            Image.fromarray(mnist.train.images[i, ..., 0]).save(place / f"pictures/{name}/{i}.png")
    for i in range(22):
        (place / f"pictures/one/bad{i:02d}.jpg").write_text("no picture")
    (place / "folder.py").write_text(FOLDER_CONFIG)
    done = command(ROOT / "train.py", "folder.py", cwd=place, XDG_CACHE_HOME=str(place / "cache"))
    assert done.returncode == 0, done.stderr
    return place, done


def test_a_folder_is_described_before_it_is_trained_on(folder_run):
    _, done = folder_run
    assert "classes: 0 one, 1 zero" in done.stdout
    assert "left out, with fewer than 3 images: rare (2)" in done.stdout
    assert "checking the images in pictures (104)" in done.stderr
    listed = [line for line in done.stderr.splitlines() if "bad" in line]
    assert len(listed) == 20
    assert all("cannot identify image file" in line for line in listed)
    (complete,) = re.findall(r"22 in all, listed in (.*)", done.stderr)
    assert len(Path(complete).read_text().splitlines()) == 22


def test_a_folder_is_learnt_and_evaluated_seen_beside_unseen(command, folder_run):
    place, done = folder_run
    summary = json.loads((place / "runs/folder/summary.json").read_text())
    assert summary["files_left_out"] == 22
    worst = min(summary[name]["accuracy"] for name in ("train_full", "validation", "test"))
    assert worst > 0.8  # 0.953 ± 0.022 over seeds (n = 8)
    assert 0 < summary["data_wait_seconds"] <= summary["train_seconds"]
    assert "On training images: " in done.stdout
    evaluated = command(ROOT / "eval.py", "runs/folder", cwd=place, XDG_CACHE_HOME=str(place / "cache"))
    assert evaluated.returncode == 0
    assert evaluated.stderr.startswith("files left out: 22\n  pictures/one/bad00.jpg: cannot identify image file")
    assert f"Overall accuracy: {summary['test']['accuracy']:.2%}" in evaluated.stdout
    for picture in ("seen_and_unseen", "flow"):
        assert (place / f"runs/folder/{picture}.png").stat().st_size > 10_000
    with (place / "runs/folder/predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == summary["test"]["examples"]
    assert all(Path(row["file"]).parent.name == row["label"] for row in rows)


def test_another_folder_than_the_run_was_made_with_is_refused(command, folder_run):
    place, _ = folder_run
    options = {"cwd": place, "XDG_CACHE_HOME": str(place / "cache")}
    (place / "pictures/zero").rename(place / "pictures/aaa")
    try:
        evaluated = lines(command(ROOT / "eval.py", "runs/folder", **options))
    finally:
        (place / "pictures/aaa").rename(place / "pictures/zero")
    assert evaluated[1].endswith("the data is not what the run was trained with:")
    assert [line.rpartition(": ")[2] for line in evaluated[2:]] == ["one, zero", "aaa, one"]
