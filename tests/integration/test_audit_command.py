"""`jaxclf audit`: planted faults of a folder are found, in files and on the page; and the page of `jaxclf probe`."""

import csv
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from support.chromium import CHROMIUM, Chromium

from jaxclf.cli.app import main
from jaxclf.inference.bundle import Bundle, write_bundle
from jaxclf.models import Cnn

SIDE = 32
PLANTED = {  # of these training images the test images have a copy
    "blue/0.png": "blue/copy.png",
    "blue/1.png": "blue/encoded.jpg",
    "red/2.png": "red/smaller.png",
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    model = Cnn(features=(16,), kernel_size=3, dense=(128,), classes=3)
    variables = model.init(jax.random.key(0), jnp.zeros((1, SIDE, SIDE, 3), np.uint8))
    path = tmp_path_factory.mktemp("audit") / "bundle"
    write_bundle(path, Bundle(model, variables, ("a", "b", "c"), SIDE, SIDE, "bilinear", {}))
    return path


def draw_picture(random, color):
    """Large blobs of one color."""
    pixels = np.clip(np.array(color) + 70 * random.normal(size=(4, 4, 1)), 0, 255).astype(np.uint8)
    return Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Blue and red pictures, with a red one among the blue ones and copies of training images among the test images."""
    place, random = tmp_path_factory.mktemp("audit") / "pictures", np.random.default_rng(0)
    for split, count in (("train", 25), ("test", 10)):
        for name, color in (("blue", (70, 100, 190)), ("red", (190, 100, 70))):
            (place / split / name).mkdir(parents=True)
            for i in range(count):
                draw_picture(random, color).save(place / split / name / f"{i}.png")
    draw_picture(random, (190, 100, 70)).save(place / "train/blue/wrong.png")
    for source, copy in PLANTED.items():
        if "copy" in copy:
            (place / "test" / copy).write_bytes((place / "train" / source).read_bytes())
            continue
        with Image.open(place / "train" / source) as image:
            side = SIDE - 4 if "smaller" in copy else SIDE
            image.resize((side, side), Image.Resampling.BICUBIC).save(place / "test" / copy, quality=75)
    return place


@pytest.fixture(scope="module")
def audit_directory(bundle, folder, tmp_path_factory):
    """The directory of an audit."""
    workdir = tmp_path_factory.mktemp("audited") / "audit"
    command = ["audit", str(folder), "--bundle", str(bundle), "--workdir", str(workdir)]
    assert main([*command, "--similarity", "0.97", "--folds", "3"]) == 0
    return workdir


def read_rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_files_have_a_row_for_each_image_and_pair(audit_directory):
    rows, pairs = read_rows(audit_directory / "audit.csv"), read_rows(audit_directory / "duplicates.csv")
    assert len(rows) == 2 * (25 + 10) + 4
    for name in ("label_rank", "outlier_rank"):
        assert sorted(int(row[name]) for row in rows) == list(range(1, len(rows) + 1))
    (wrong,) = (row for row in rows if row["label_rank"] == "1")
    assert (wrong["file"], wrong["label"], wrong["prediction"]) == ("train/blue/wrong.png", "blue", "red")
    assert float(wrong["self_confidence"]) < 0.1
    found = {tuple(sorted((pair["first"], pair["second"]))): pair for pair in pairs}
    planted = {(f"test/{copy}", f"train/{source}") for source, copy in PLANTED.items()}
    assert planted <= set(found)
    assert len(found) < 10  # other pictures are not alike
    assert [pair["identical"] for pair in pairs].count("true") == 1
    assert found["test/blue/copy.png", "train/blue/0.png"]["similarity"] == "1.000000"
    assert all(found[pair]["across_splits"] == "true" for pair in planted)


def test_the_summary_counts_what_the_files_have(audit_directory):
    summary = json.loads((audit_directory / "summary.json").read_text())
    pairs = read_rows(audit_directory / "duplicates.csv")
    assert summary["images"] == {"train": 51, "test": 23}
    assert summary["duplicates"]["pairs"] == len(pairs)
    assert summary["duplicates"]["first"] == [[pair["first"], pair["second"]] for pair in pairs]
    assert summary["duplicates"]["identical"] == 1
    assert summary["duplicates"]["across_splits"] >= 3
    assert summary["label_errors"]["count"] >= 1
    assert summary["label_errors"]["first"][0] == "train/blue/wrong.png"
    assert len(summary["outliers"]["first"]) == 24
    assert (summary["folds"], summary["neighbors"], summary["similarity"]) == (3, 10, 0.97)


def test_the_page_has_the_pictures(audit_directory):
    page = (audit_directory / "audit.html").read_text()
    summary = json.loads((audit_directory / "summary.json").read_text())
    shown = [summary[kind]["first"] for kind in ("label_errors", "outliers")]
    assert page.count("<img ") == sum(map(len, shown)) + 2 * len(summary["duplicates"]["first"])
    assert page.count('src="data:image/webp;base64,') == page.count("<img ")
    assert "identical files" in page


def test_mistakes_are_answered(bundle, folder, tmp_path, random, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def answer(pictures, workdir, *options):
        command = ["audit", str(pictures), "--bundle", str(bundle), "--workdir", str(workdir), *options]
        assert main(command) == 2
        (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("error: "))
        return line

    few, workdir = tmp_path / "few", tmp_path / "run"
    for name, count in (("blue", 9), ("red", 3)):
        (few / name).mkdir(parents=True)
        for i in range(count):
            draw_picture(random, (99, 99, 99)).save(few / name / f"{i}.png")
    assert "folds=5: expected 2 to 3" in answer(few, workdir)
    assert "neighbors=12: expected 1 to 11" in answer(few, workdir, "--folds", "3", "--neighbors", "12")
    assert "similarity=0.0: expected above 0" in answer(few, workdir, "--folds", "3", "--similarity", "0")
    assert "is not an empty directory" in answer(few, folder)
    for path in (few / "red").iterdir():
        path.unlink()
    (few / "red").rmdir()
    assert f"{few} has images of one class, blue" in answer(few, workdir)
    assert not workdir.exists()
    assert not (tmp_path / "cache/jaxclf/features").exists()  # all of them before features are computed


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium, chromium-browser or google-chrome on the PATH")
def test_the_pages_in_a_browser(audit_directory, bundle, folder, tmp_path):
    command = ["probe", str(folder), "--bundle", str(bundle), "--workdir", str(tmp_path / "probe"), "--seeds", "1"]
    assert main([*command, "--folds", "3"]) == 0
    browser = Chromium(tmp_path / "profile")
    try:
        for page in (audit_directory / "audit.html", tmp_path / "probe/probe.html"):
            for width in (1200, 400):
                browser.open(page, width)
                assert browser.value("[...document.images].every(image => image.naturalWidth > 0)")
                assert browser.value("document.documentElement.scrollWidth <= innerWidth")
                assert browser.complaints == browser.requests == []
    finally:
        browser.close()
