"""The command `jaxclf benchmark-saliency`: its files, a second call, and networks of other classes."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from support.cli import run_command

import jaxclf
from jaxclf.config import Config
from jaxclf.datasets import Cartoons, PartsMix
from jaxclf.datasets.cartoons import CHARACTERS, render
from jaxclf.datasets.parts import make_mixed_characters
from jaxclf.models import Cnn, Mlp
from jaxclf.optimizers import Adam
from jaxclf.saliency.parts.funnybirds import FUNNYBIRDS
from jaxclf.saliency.parts.scores import SCORES


def train(dataset, model, workdir):
    """Train a small network for a few steps."""
    config = Config(dataset=dataset, model=model, optimizer=Adam(learning_rate=0.01), epochs=1, batch_size=56)
    jaxclf.fit(config, workdir=workdir)
    return workdir


@pytest.fixture(scope="module")
def cartoons(tmp_path_factory):
    directory = tmp_path_factory.mktemp("cartoons")
    render(directory / "cartoons-1", [replace(character, images=12) for character in CHARACTERS])
    return Cartoons(directory=str(directory))


@pytest.fixture(scope="module")
def cartoon_run(cartoons, tmp_path_factory):
    return train(cartoons, Cnn(features=(4,), dense=(), classes=18), tmp_path_factory.mktemp("cnn") / "run")


def test_scores_of_methods_and_of_the_truth(cartoon_run, tmp_path, capsys):
    arguments = (cartoon_run, "--output", tmp_path, "--images", 8, "--methods", "gradient", "grad-cam")
    assert run_command("benchmark-saliency", arguments) == 0
    printed = capsys.readouterr().out
    results = json.loads((tmp_path / "parts.json").read_text())
    methods = results["methods"]
    assert set(methods) == {"truth", "gradient", "grad-cam", "random", "area", "edges", "occlusion-by-part"}
    for score in SCORES:
        best = 0 if score in ("s3", "s4_regret", "s6") else 1
        if methods["truth"][score]["n"]:
            assert methods["truth"][score]["mean"] == pytest.approx(best, abs=1e-9)
    assert methods["gradient"]["s2"]["n"] == 8
    assert methods["gradient"]["s2"]["stderr"] > 0
    assert set(results["differences"]["s2"]["minus_best"]) | {results["differences"]["s2"]["best"]} == set(methods)
    assert results["runs"]["run"]["additive_share"]["mean"] <= 1
    rows = list(csv.DictReader((tmp_path / "parts.csv").read_text().splitlines()))
    assert len(rows) == 7 * 8
    of_gradient = [float(row["s2"]) for row in rows if row["method"] == "gradient"]
    assert np.mean(of_gradient) == pytest.approx(methods["gradient"]["s2"]["mean"], abs=1e-5)
    page = (tmp_path / "parts.html").read_text()
    assert "grad-cam" in page and "Kendall" in page
    assert "wrote" in printed


def test_runs_are_averaged_over_the_methods_that_all_support(cartoons, cartoon_run, tmp_path, capsys):
    dense = train(cartoons, Mlp(features=(8,), classes=18), tmp_path / "mlp")
    arguments = (cartoon_run, dense, "--output", tmp_path / "parts", "--images", 4, "--methods")
    assert run_command("benchmark-saliency", (*arguments, "gradient", "lrp")) == 0
    results = json.loads((tmp_path / "parts/parts.json").read_text())
    runs = results["runs"]
    assert set(runs) == {"run", "mlp"}
    means = [run["methods"]["lrp"]["s3"]["mean"] for run in runs.values()]
    assert results["methods"]["lrp"]["s3"]["mean"] == pytest.approx(np.mean(means))
    truths = json.loads((tmp_path / "parts/cells/mlp/truth.json").read_text())
    assert len(truths) == 4
    assert len(truths[0]["interactions"]) == len(truths[0]["shapley"]) == len(truths[0]["parts"])
    assert run_command("benchmark-saliency", (*arguments, "grad-cam")) == 2
    assert "grad-cam: no layer" in capsys.readouterr().err


def test_characters_that_share_parts_get_the_scores_of_funnybirds(tmp_path):
    characters = [replace(character, images=4) for character in make_mixed_characters()]
    for name in ("parts_mix-1", "parts_mix-1-without-0.5"):
        render(tmp_path / name, characters)
    run = train(PartsMix(directory=str(tmp_path)), Cnn(features=(4,), dense=(), classes=50), tmp_path / "run")
    arguments = (run, "--output", tmp_path / "parts", "--images", 6, "--methods", "gradient")
    assert run_command("benchmark-saliency", arguments) == 0
    methods = json.loads((tmp_path / "parts/parts.json").read_text())["methods"]
    assert set(methods["gradient"]) == {*SCORES, *FUNNYBIRDS}
    assert methods["truth"]["sd"]["mean"] == pytest.approx(1)
    assert methods["area"]["ts"]["mean"] in (0, None)


def test_a_second_call_computes_only_what_is_missing(cartoon_run, tmp_path, monkeypatch):
    explained = []
    explain = jaxclf.Run.explain

    def count(run, method, *arguments, **options):
        explained.append(type(method).__name__)
        return explain(run, method, *arguments, **options)

    monkeypatch.setattr(jaxclf.Run, "explain", count)

    def score(*methods):
        return run_command(
            "benchmark-saliency", (cartoon_run, "--output", tmp_path, "--images", 4, "--methods", *methods)
        )

    assert score("gradient") == 0
    first = json.loads((tmp_path / "parts.json").read_text())["methods"]["gradient"]
    assert score("gradient", "lrp") == 0
    assert explained == ["Gradient"] * 2 + ["Lrp"] * 2
    assert json.loads((tmp_path / "parts.json").read_text())["methods"]["gradient"] == first
    assert score("gradient", "--gradient.score", "margin") == 0
    assert explained[4:] == ["Gradient"] * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--images", 2), "--images 2: expected at least 4"),
        (("--methods", "lpr"), "did you mean lrp?"),
        (("--lrp.epsilonn", 1), "did you mean --lrp.epsilon?"),
    ],
)
def test_wrong_options_are_named(cartoon_run, tmp_path, capsys, arguments, message):
    assert run_command("benchmark-saliency", (cartoon_run, "--output", tmp_path, *arguments)) == 2
    assert message in capsys.readouterr().err


def test_a_network_of_other_classes_is_refused(linear_run, tmp_path, capsys):
    assert run_command("benchmark-saliency", (linear_run[0], "--output", tmp_path, "--images", 4)) == 2
    assert "expected the characters of the dataset Cartoons or PartsMix" in capsys.readouterr().err
