"""Runs written by earlier versions still evaluate, explain and resume.

`data/run_0.1.0` is a two-epoch run without its second checkpoint, written before modules moved; `data/expected_0.1.0`
is what that version computed. `data/run_maxout` is a run of a `MaxoutCnn` that Flax's batch normalization trained, with
an EMA of its parameters. Bounds are those of another CPU's rounding.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.cli import evaluate, explain, train
from support.runs import rows

DATA = Path(__file__).parents[1] / "data"
EXPECTED = DATA / "expected_0.1.0"
EXPECTED_MAXOUT = {weights: DATA / f"expected_maxout_{weights}" for weights in ("ema", "raw")}


@pytest.fixture
def run(tmp_path):
    return shutil.copytree(DATA / "run_0.1.0", tmp_path / "run")


def test_it_evaluates_to_the_same_numbers(run):
    assert evaluate([run]) == 0
    found, expected = (json.loads((path / "evaluation.json").read_text()) for path in (run, EXPECTED))
    assert found.keys() == expected.keys()
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-6)
    difference = np.abs(np.subtract(found["confusion_matrix"], expected["confusion_matrix"])).sum()
    assert difference <= 2  # one image of 10,000 whose largest logits are equal but for rounding


@pytest.mark.parametrize("weights", ["ema", "raw"])
def test_a_network_of_earlier_batch_normalization_evaluates_to_the_same_numbers(weights, tmp_path):
    run = shutil.copytree(DATA / "run_maxout", tmp_path / "run")
    assert evaluate([run, "--weights", weights]) == 0
    found, expected = (json.loads((path / "evaluation.json").read_text()) for path in (run, EXPECTED_MAXOUT[weights]))
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-6)
    assert np.abs(np.subtract(found["confusion_matrix"], expected["confusion_matrix"])).sum() <= 2


def test_its_saliency_maps_are_the_same(run):
    assert explain([run, "--methods", "gradient", "integrated-gradients", "--limit", 2]) == 0
    with np.load(run / "explanations.npz") as found, np.load(EXPECTED / "explanations.npz") as expected:
        assert set(found) == set(expected)
        for name in expected:
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-6)


def test_it_resumes_to_the_same_metrics(run):
    config = run.parent / "small.py"
    config.write_text(
        "import json\nfrom pathlib import Path\n\nfrom jaxclf.config_io import from_json\n\n\n"
        "def get_config():\n"
        f"    return from_json(json.loads(Path({str(run / 'config.json')!r}).read_text()))\n"
    )
    assert train([config, "--workdir", run]) == 0
    found, expected = rows(run), rows(EXPECTED)
    assert len(found) == len(expected)
    for row, other in zip(found, expected, strict=True):
        assert row.keys() == other.keys()
        for name in row:
            if isinstance(row[name], float):
                assert row[name] == pytest.approx(other[name], rel=1e-4), name
            else:
                assert row[name] == other[name]
