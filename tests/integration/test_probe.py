"""`jaxclf probe`: classifiers on the features of a bundle."""

import csv
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxclf.cli.app import main
from jaxclf.inference.bundle import Bundle, write_bundle
from jaxclf.io.files import get_cache_directory
from jaxclf.models import Cnn


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    model = Cnn(features=(6,), kernel_size=3, dense=(8,), classes=3)
    variables = model.init(jax.random.key(0), jnp.zeros((1, 12, 12, 3), np.uint8))
    path = tmp_path_factory.mktemp("probe") / "bundle"
    write_bundle(path, Bundle(model, variables, ("a", "b", "c"), 12, 12, "bilinear", {}))
    return path


def draw_folder(folder, random, count=30):
    """Images of two colors, in two classes."""
    for name, color in (("blue", (20, 60, 200)), ("red", (200, 60, 20))):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = np.clip(np.array(color) + 5 * random.normal(size=(12, 12, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


def test_a_folder_is_classified_and_features_are_computed_once(bundle, tmp_path, random, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = draw_folder(tmp_path / "pictures", random)
    command = ["probe", str(folder), "--bundle", str(bundle), "--seeds", "2", "--folds", "3", "--workdir"]
    assert main([*command, str(tmp_path / "first")]) == 0
    printed = capsys.readouterr()
    assert "Overall accuracy: 100.00%" in printed.out
    assert "computing features" in printed.err
    summary = json.loads((tmp_path / "first/summary.json").read_text())
    assert summary["images"] == {"train": 48, "test": 12}
    assert (summary["test"]["accuracy"], summary["test"]["images"], summary["features"]) == (1, 12, 8)
    assert 0.7 < summary["test"]["low"] < 0.8  # twelve images say no more
    assert (summary["nested"]["mean"], summary["nested"]["n"]) == (1, 3)
    assert summary["neighbors"]["probe_minus_neighbors"]["mean"] == 0
    assert list(summary["learning_curve"]) == ["1", "2", "5", "10", "20"]
    with (tmp_path / "first/predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    assert all(row["label"] == row["prediction"] == row["file"].split("/")[0] for row in rows)
    page = (tmp_path / "first/probe.html").read_text()
    assert "There are no mistakes in 12 images." in page
    assert "100.00% [" in page
    assert page.count('<figure class="chart"') == 1  # the learning curve
    (folder / "red/0.png").rename(folder / "red/renamed.png")
    (cached,) = (get_cache_directory() / "features").iterdir()
    before = (cached / "features.f32").read_bytes()
    assert main([*command, str(tmp_path / "second")]) == 0
    assert "computing features" not in capsys.readouterr().err  # they are kept by content, not by name
    assert (cached / "features.f32").read_bytes() == before


def test_the_page_shows_mistakes_with_their_files(bundle, tmp_path, random, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = draw_folder(tmp_path / "pictures", random)
    for split in ("train", "test"):
        (folder / split).mkdir()
    for name in ("blue", "red"):
        (folder / name).rename(folder / "train" / name)
        (folder / "test" / name).mkdir()
        for i in range(5):
            (folder / f"train/{name}/{i}.png").rename(folder / f"test/{name}/{i}.png")
    (folder / "test/blue/0.png").rename(folder / "test/red/wrong.png")
    workdir = tmp_path / "run"
    command = ["probe", str(folder), "--bundle", str(bundle), "--seeds", "1", "--folds", "3", "--workdir", str(workdir)]
    assert main(command) == 0
    page = (workdir / "probe.html").read_text()
    assert '<li title="test/red/wrong.png">' in page
    assert "true red" in page
    assert page.count('<img src="data:image/webp;base64,') == page.count("<img ") == 1


def test_mistakes_are_answered(bundle, tmp_path, random, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = draw_folder(tmp_path / "few", random, 4)
    command = ["probe", str(folder), "--bundle", str(bundle), "--workdir", str(tmp_path / "run")]
    assert main(command) == 2
    assert "folds=5: expected 2 to" in capsys.readouterr().err
    assert main([*command, "--folds", "2"]) == 2  # nested folds would leave one of three training images
    assert "folds=2: the smallest class has 3 images, and one fold less leaves 1" in capsys.readouterr().err
    assert main([*command[:-1], str(folder)]) == 2
    assert "is not an empty directory" in capsys.readouterr().err
    assert main(["probe", str(tmp_path / "nowhere"), *command[2:]]) == 2
    assert "no folder at" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
