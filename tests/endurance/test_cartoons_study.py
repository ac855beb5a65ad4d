"""The study on drawn characters, with fewer epochs than its configs have."""

import json

import pytest


@pytest.mark.timeout(1200)
def test_shapes_are_needed_and_memorized_images_do_not_help_with_new_ones(command, tmp_path):
    for name, epochs in (("cnn", 12), ("linear", 8), ("overfit", 35)):  # of 30, 30 and 60 in the configs
        done = command("-m", "jaxclf", "train", f"cartoons_{name}", "--epochs", epochs, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    network, linear, memorized = (
        json.loads((tmp_path / f"runs/cartoons_{name}/summary.json").read_text())
        for name in ("cnn", "linear", "overfit")
    )
    assert network["parameters"] == 1_337_296 + 513 * 18
    assert linear["test"]["accuracy"] < 0.4 < 0.8 < network["test"]["accuracy"]
    assert memorized["train_full"]["accuracy"] > 0.99
    assert memorized["test"]["accuracy"] < 0.6
    done = command("-m", "jaxclf", "eval", "runs/cartoons_overfit", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs/cartoons_overfit/seen_and_unseen.png").is_file()
