"""Remove and retrain (ROAR): removal of pixels, and the script."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

from jaxclf import saliency
from jaxclf.config import Config
from jaxclf.datasets import Mnist
from jaxclf.models import Mlp
from jaxclf.optimizers import Adam
from jaxclf.saliency.names import METHODS
from jaxclf.types import Split, Splits

SPEC = importlib.util.spec_from_file_location("roar", Path(__file__).parents[2] / "benchmarks" / "roar.py")
roar = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(roar)


@pytest.fixture
def splits(random):
    def split(n):
        return Split(random.integers(0, 256, (n, 4, 5, 3), np.uint8), np.arange(n) % 2, ("a", "b"))

    return Splits(split(6), None, split(4))


@pytest.mark.parametrize("percentage", [0, 30, 100])
def test_the_most_important_pixels_are_replaced_by_the_mean_of_the_training_images(splits, random, percentage):
    scores = {
        name: random.permuted(np.tile(np.arange(20), (len(splits[name]), 1)), axis=1) for name in ("train", "test")
    }
    before = splits.train.images.copy()
    left = roar.remove_pixels(splits, scores, percentage)
    assert left.validation is None
    for name, of in scores.items():
        gone = (of >= 20 - 20 * percentage / 100).reshape(-1, 4, 5)
        mean = before.reshape(-1, 3).mean(axis=0).round()
        np.testing.assert_array_equal(left[name].images, np.where(gone[..., None], mean, splits[name].images))
        np.testing.assert_array_equal(left[name].labels, splits[name].labels)
    np.testing.assert_array_equal(splits.train.images, before)


def test_importance_is_the_absolute_value_of_the_sum_over_channels(splits, monkeypatch):
    """The last batch is smaller."""
    model = Mlp(features=(3,), classes=2)
    config = Config(Mnist(), model, Adam(learning_rate=0.1), epochs=1, batch_size=2)
    variables = model.init(roar.make_key(0, "init"), splits.train.images)
    values = saliency.Gradient()(model, variables, splits.train.images).values
    monkeypatch.setattr(roar, "BATCH", 4)
    found = roar.compute_importance(saliency.Gradient(), config, variables, splits.train)
    np.testing.assert_allclose(found, np.abs(values.sum(axis=3)).reshape(6, 20), rtol=1e-5)
    chance = roar.compute_importance(None, config, variables, splits.train)
    assert chance.shape == (6, 20)
    assert len(np.unique(chance)) == 120


def test_method_names_exist():
    assert set(roar.COMPARED) <= set(METHODS)


def test_the_script_reports_each_method_and_percentage_and_random_pixels(command):
    done = command(
        "benchmarks/roar.py", "mnist_linear", "--methods", "gradient", "--percentages", "10", "90",
        "--limit", "500", "--epochs", "2", "--repeats", "2",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    whole, *rows = done.stdout.splitlines()
    assert re.fullmatch(r"mnist_linear: test accuracy \d+\.\d\d% on whole images", whole)
    found = [re.match(r"mnist_linear: (\S+) +(\S+) % removed +(\S+)% ± (\S+)%", row).groups() for row in rows]
    assert [row[:2] for row in found] == [(name, share) for name in ("random", "gradient") for share in ("10", "90")]
    for little, much in (found[:2], found[2:]):
        assert float(little[2]) > float(much[2])
