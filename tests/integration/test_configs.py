"""Every config trains, and the documented networks reach what their documents say."""

import re
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.pictures import write

import jaxclf
from jaxclf.api import check_model
from jaxclf.augment import CenterCrop, Flip, RandomResizedCrop
from jaxclf.config_io import read_config
from jaxclf.datasets.mnist import SHA256
from jaxclf.random import make_key
from jaxclf.training.devices import Devices
from jaxclf.training.fine_tuning import Choices, Start, build_config, hold_out_images
from jaxclf.training.trainer import Trainer
from jaxclf.types import Split, Splits

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").glob("*.py"))


COLOR = {
    "cartoons_resnet": (64, 64),
    "cartoons_vit": (64, 64),
    "cifar10_fast": (32, 32),
    "cifar10_resnet": (32, 32),
    "cifar10_vit": (32, 32),
    "parts_mix_resnet": (64, 64),
    "simpsons28": (28, 28),
}
"""Configs that normalize color images, and the size of these."""
# simpsons_cnn and simpsons_overfit have the network of the configs for cartoons.
OTHERS = [path for path in CONFIGS if not path.stem.startswith(("simpsons", "imagefolder", "finetune", *COLOR))]


def make_photographs(image_size, classes, images=256):
    """Images whose color tells the class, with noise."""
    random = np.random.default_rng(0)
    labels = np.arange(images) % classes
    colors = random.uniform(50, 200, (classes, 3))[labels][:, np.newaxis, np.newaxis]
    noisy = colors + random.normal(0, 20, (images, *image_size, 3))
    part = Split(noisy.clip(0, 255).astype(np.uint8), labels.astype(np.int32), tuple(map(str, range(classes))))
    return Splits(part, None, part)


def test_the_config_of_fine_tuning_is_what_the_command_chooses(tmp_path):
    expected = read_config("finetune")
    write(tmp_path / "train", {"ants": 124, "bees": 121})
    write(tmp_path / "val", {"ants": 1, "bees": 1})
    folder = hold_out_images(replace(expected.dataset, root=str(tmp_path), validation_fraction=0.0))
    start = Start(expected.model.clone(classes=1000), expected.init, expected.evaluation_transform, (224, 224, 3))
    config, _ = build_config(folder, folder.load(), start, Choices())
    assert replace(config, dataset=replace(folder, root=expected.dataset.root)) == expected
    assert check_model(config, make_photographs((256, 256), 2, images=4)).trainable == 3_373_570


@pytest.mark.parametrize("name", COLOR)
def test_each_config_for_color_images_learns_in_a_few_steps(name):
    config = replace(read_config(name), epochs=4, batch_size=32)
    run = jaxclf.fit(config, splits=make_photographs(COLOR[name], config.model.classes, images=64))
    losses = [row["loss"] for row in run.history if (row["split"], row["period"]) == ("train", "epoch")]
    assert len(losses) == 4
    assert losses[-1] < losses[0]


def test_the_recipe_of_imagenet_takes_a_step():
    config = read_config("imagefolder_resnet50")
    check_model(config, make_photographs(config.dataset.image_size, 1000, images=2))
    # The same recipe with fewer blocks, on smaller images.
    config = replace(
        config, model=config.model.clone(depths=(1, 1, 1, 1), batch_norm_group=2), epochs=1, batch_size=4,
        augment=(RandomResizedCrop(32), Flip()), evaluation_transform=CenterCrop(32),
    )  # fmt: skip
    run = jaxclf.fit(config, splits=make_photographs((40, 36), 1000, images=4))
    assert (run.step, run.image_shape, run.input_shape) == (1, (40, 36, 3), (32, 32, 3))


@pytest.mark.parametrize("path", OTHERS, ids=lambda path: path.stem)
def test_each_config_learns_in_a_few_steps(path, digits):
    """The loss of the last of eight epochs is below that of the untrained network, dropout and mixup included."""
    config = replace(read_config(str(path)), epochs=8, log_every=2, eval_batch_size=53)
    train, validation = digits.train, digits.validation
    untrained = config.model.init(make_key(config.seed, "init"), train.images[:1])
    losses = config.loss(config.model.apply(untrained, train.images), train.labels)

    run = Trainer(config, digits, Devices.all())
    run.fit()

    whole, rest = divmod(len(train), config.batch_size)
    assert run.progress.steps_done == 8 * (whole + (config.remainder == "pad" and rest > 0))
    assert run.progress.latest["train"]["loss"] < losses.mean()
    correct = run.progress.latest["validation"]["accuracy"] * len(validation)
    assert correct == pytest.approx(round(correct))  # of all images, each counted once


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_each_config_states_its_command_and_its_claim(path):
    docstring = path.read_text().split('"""')[1]
    assert f"python train.py configs/{path.name}" in docstring
    if "Not measured" in docstring:
        return
    assert re.search(r"^\d\d\.\d\d( ± \d\.\d\d)? % test accuracy.*n = \d", docstring, re.M), "the measured accuracy"
    assert "core" in docstring, "the machine"


def test_a_wheel_brings_data_configs_and_commands(tmp_path):
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (entry_points,) = (name for name in names if name.endswith("entry_points.txt"))
        commands = archive.read(entry_points).decode()
    assert {f"jaxclf/configs/{path.name}" for path in CONFIGS} <= names
    assert {f"jaxclf/datasets/{name}.gz" for name in SHA256} <= names
    assert "jaxclf = jaxclf.cli.app:main" in commands
